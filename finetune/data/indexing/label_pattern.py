"""Read classes from the names of files: by a regular expression that was given, or one that fits them all.

An expression can take longer than the universe lasts on a name of thirty letters, and nothing stops it in the
process that it runs in. So it runs in one of its own, which is stopped after it has computed for a few
seconds: where others compute as well, that takes longer.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from finetune.errors import ConfigError
from finetune.text import counted, printable, quoted

_SECONDS = 2.0  # of computing, for the start of the process and the first names
_PATIENCE = 30  # times as long may pass, on a machine that has other things to do
_NAMES_A_SECOND = 20_000  # a tenth of what sensible expressions manage

_FEWEST = 3  # images of a class on average; two of a name are rather two pictures of one thing
_VIEWS = frozenset(
    ("left", "right", "l", "r", "front", "back", "side", "top", "bottom", "rear", "d", "od", "os")
)

_PROGRAM = """\
import json, re, resource, sys
seconds = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
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
    seconds = int(_SECONDS + len(files) / _NAMES_A_SECOND)
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", _PROGRAM, str(seconds)]
    asked = json.dumps([pattern, files]).encode()
    try:
        done = subprocess.run(command, input=asked, capture_output=True, timeout=_PATIENCE * seconds)
        done.check_returncode()
    except subprocess.TimeoutExpired:
        raise _stopped(pattern, seconds, files) from None
    except subprocess.CalledProcessError as error:
        if error.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            raise _stopped(pattern, seconds, files) from None
        # Out of memory or depth.
        raise ConfigError(
            f"data.label_pattern: {printable(pattern)} cannot be matched with {printable(files[0])!r} "
            f"({_last_line(error.stderr)})."
        ) from None
    found = json.loads(done.stdout)
    return {name: label for name, label in zip(names, found, strict=True) if label}


def _stopped(pattern: str, seconds: int, files: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"data.label_pattern: {printable(pattern)} was stopped after {seconds} s on "
        f"{counted(len(files), 'name')}, such as {printable(files[0])!r}.\n"
        "Write it without a repeat inside a repeat, such as (a+)+."
    )


class Proposal(NamedTuple):
    """A pattern that explains the names of all images."""

    pattern: str
    doubt: str
    """why what it finds may be no classes; empty where nothing speaks against them"""


def propose_pattern(names: Sequence[str]) -> Proposal | None:
    """Return the first of the usual patterns that explains all names by two classes or more.

    Each class has two images at least: otherwise what was found is rather a number of the image. With hardly
    more, or with classes such as `left` and `right`, the pattern is doubtful.
    """
    files = [os.path.basename(name) for name in names]
    for pattern in _USUAL:
        search = re.compile(pattern).search
        found = [match[1] if (match := search(file)) else "" for file in files]
        labels = Counter(found)
        if "" not in labels and len(labels) > 1 and min(labels.values()) > 1:
            return Proposal(pattern, _doubt(labels))
    return None


def _doubt(labels: Mapping[str, int]) -> str:
    """Say why the classes that a pattern finds may be none."""
    total, number = sum(labels.values()), len(labels)
    if total < _FEWEST * number:
        return f"{number} classes of {total / number:.1f} images each, such as {quoted(sorted(labels)[:2])}"
    if all(name.casefold() in _VIEWS for name in labels):
        return f"classes {quoted(sorted(labels))}, which may be views of the same"
    return ""


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1]) if lines else "no reason given"
