"""SHA-256 of the files of a run that a result or a resume depends on: one list, checked at every reading.

A file that was damaged, or edited by hand, would otherwise give another answer without a word: two class
names that change places are still a valid file.

Files that belong together change together, although a system can only rename them one by one: their new
contents are staged under temporary names, then the list is replaced, then they get their names. So the list
decides. A process that is killed before it is replaced leaves the old files; one that is killed afterwards
leaves the new ones, some perhaps under their temporary names, where they are found.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from os.path import exists
from pathlib import Path

from finetune.errors import CheckpointError, ResourceError
from finetune.machine.files import publish, stage_bytes, staged, write_json
from finetune.runs.names import CLASSES, CONFIG, DIGESTS, FILES, KNOWN, MODEL, SPLIT, STARTED, WEIGHTS
from finetune.version import VERSION

COVERED = (WEIGHTS, MODEL, KNOWN, CLASSES, SPLIT, FILES, STARTED)
"""Files in the list, in the order in which those that change together are written."""

TRIES = 5
"""How often to look at a file that may be changing: a training saves its best model beside an evaluation."""
WAIT = 0.2  # seconds between two of them


def write_covered(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of the list, all or none of them, with their digests.

    Raises:
        ValueError: a file that is not in the list.
        ResourceError: the system refuses; the files are those from before.
    """
    if unlisted := contents.keys() - set(COVERED):
        raise ValueError(f"not in the list of files with digests: {', '.join(sorted(unlisted))}")
    old = read_list(directory) if (directory / DIGESTS).exists() else {}
    for name, digest in old.items():  # what a kill left staged would be lost by staging anew
        if staged(directory / name).exists() and _digest(staged(directory / name)) == digest:
            publish(directory / name)
    names = [name for name in COVERED if name in contents]
    try:
        for name in names:
            stage_bytes(directory / name, contents[name])
        new = {name: hashlib.sha256(contents[name]).hexdigest() for name in names}
        write_json(directory / DIGESTS, old | new)
    except ResourceError:
        for name in names:
            with suppress(OSError):
                staged(directory / name).unlink(missing_ok=True)
        raise
    for name in names:
        publish(directory / name)


def read_checked(path: Path) -> bytes:
    """Read a file of a run; one that is in the list only as it was written.

    Raises:
        CheckpointError: it is not what the run wrote.
        OSError: it is not there, or cannot be read.
    """
    if path.name not in COVERED:
        return path.read_bytes()
    for _ in range(TRIES):
        valid = find_valid(path)
        with suppress(FileNotFoundError):  # what was staged has just got its name
            return valid.read_bytes()
    raise _altered(path)


def find_valid(path: Path) -> Path:
    """Return where the content of a file of the list is: at its name, or staged by a killed process.

    Raises:
        CheckpointError: it is not what the run wrote, or is gone.
        OSError: it was never written, or cannot be read.
    """
    for _ in range(TRIES):
        if exists(path) or exists(staged(path)):
            listed = read_list(path.parent)
            for candidate in (path, staged(path)):
                with suppress(FileNotFoundError):
                    if _digest(candidate) == listed.get(path.name):
                        return candidate
        elif not exists(path.parent / DIGESTS) or path.name not in read_list(path.parent):
            raise FileNotFoundError(path)
        time.sleep(WAIT)
    raise _altered(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _altered(path: Path) -> CheckpointError:
    if not path.exists():
        return CheckpointError(f"{path} is missing.\nRestore the file from a copy, or train again.")
    return CheckpointError(
        f"{path} is damaged or was changed: its SHA-256 is not the one in {DIGESTS}.\n"
        "Restore the file from a copy, or train again; the files of a run cannot be edited."
    )


def refuse_draft(directory: Path) -> None:
    """Refuse a run that was written while 0.1.0 was made; its files are told by what their beginning holds.

    Raises:
        CheckpointError: it is one.
    """
    try:
        started = json.loads((directory / STARTED).read_bytes())
    except (OSError, ValueError):
        return
    if isinstance(started, dict) and "world" in started:
        raise CheckpointError(
            f"{directory} is of a draft of finetune 0.1.0 (format {started.get('format', 1)}), "
            f"which finetune {VERSION} cannot read.\nTrain again: finetune train {directory / CONFIG}"
        )


def read_list(directory: Path) -> dict[str, str]:
    """Read the digests by file name.

    Raises:
        CheckpointError: the list is missing or damaged.
    """
    path = directory / DIGESTS
    try:
        listed = json.loads(path.read_bytes())
    except FileNotFoundError:
        refuse_draft(directory)
        raise CheckpointError(
            f"{path} is missing: it was removed, or the run is of another version of finetune.\n"
            "Restore the file, use the version that wrote the run, or train again."
        ) from None
    except ValueError:
        listed = None
    if isinstance(listed, dict) and any(isinstance(digests, list) for digests in listed.values()):
        refuse_draft(directory)
    if not isinstance(listed, dict) or not all(isinstance(digest, str) for digest in listed.values()):
        raise CheckpointError(f"{path} is damaged.\nRestore the file from a copy, or train again.")
    return listed
