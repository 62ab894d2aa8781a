"""Read classes from the names of files: by a regular expression that was given, or one that fits them all.

An expression can take longer than the universe lasts on a name of thirty letters, and nothing stops it in the
process that it runs in. So it runs in one of its own, which is stopped after a few seconds.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

from finetune.errors import ConfigError
from finetune.text import counted, printable

_SECONDS = 2.0  # for the start of the process and the first names
_NAMES_A_SECOND = 20_000  # a tenth of what sensible expressions manage

_PROGRAM = """\
import json, re, sys
pattern, names = json.load(sys.stdin)
search = re.compile(pattern).search
json.dump([found[1] if (found := search(name)) else None for name in names], sys.stdout)
"""

# From what most data sets are named by to what few are. `cat_12.jpg` comes before `cat_a_12.jpg`, whose
# class is `cat_a`: a first part alone would lose the second.
_USUAL = (
    r"^(.+)_\d+\.",
    r"^(.+)\.\d+\.",
    r"^(.+)-\d+\.",
    r"^(.+) \(\d+\)\.",
    r"^(.+) \d+\.",
    r"^(.*\D)\d+\.",
    r"^\d+_(.+)\.",
    r"^\d+-(.+)\.",
    r"^\d+\.(.+)\.",
    r"^\d+ (.+)\.",
    r"^([^_]+)_",
    r"^([^-]+)-",
    r"^([^.]+)\..+\.",
    r"^([^ ]+) ",
    r"_([^_]+)\.[^.]+$",
    r"-([^-]+)\.[^.]+$",
)


def labels_by_pattern(pattern: str, names: Sequence[str]) -> dict[str, str]:
    """Return the class of each image by the one group of a pattern, found in the name of its file.

    Args:
        pattern: a regular expression with one group.
        names: POSIX paths; what has no match, or an empty one, is left out.

    Raises:
        ConfigError: the expression takes too long.
    """
    files = [name.rpartition("/")[2] for name in names]
    seconds = _SECONDS + len(files) / _NAMES_A_SECOND
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _PROGRAM]
    try:
        done = subprocess.run(
            command, input=json.dumps([pattern, files]).encode(), capture_output=True, timeout=seconds
        )
        done.check_returncode()
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"data.label_pattern: {printable(pattern)} was stopped after {seconds:.0f} s on "
            f"{counted(len(files), 'name')}, such as {printable(files[0])!r}.\n"
            "Write it without a repeat inside a repeat, such as (a+)+."
        ) from None
    except subprocess.CalledProcessError as error:  # out of memory or depth
        raise ConfigError(
            f"data.label_pattern: {printable(pattern)} cannot be matched with {printable(files[0])!r} "
            f"({_last_line(error.stderr)})."
        ) from None
    found = json.loads(done.stdout)
    return {name: label for name, label in zip(names, found, strict=True) if label}


def propose_pattern(names: Sequence[str]) -> str | None:
    """Return the first of the usual patterns that explains all names by two classes or more.

    Each class has two images at least: otherwise what was found is rather a number of the image.
    """
    files = [os.path.basename(name) for name in names]
    for pattern in _USUAL:
        search = re.compile(pattern).search
        labels = Counter(found[1] if (found := search(file)) else None for file in files)
        if None not in labels and len(labels) > 1 and min(labels.values()) > 1:
            return pattern
    return None


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1]) if lines else "no reason given"
