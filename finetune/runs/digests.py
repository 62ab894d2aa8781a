"""SHA-256 of the files of a run that a result or a resume depends on: one list, checked at every reading.

A file that was damaged, or edited by hand, would otherwise give another answer without a word: two class
names that change places are still a valid file.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from finetune.errors import CheckpointError
from finetune.machine.files import write_bytes, write_json
from finetune.runs.names import CLASSES, DIGESTS, FILES, MODEL, SPLIT, STARTED, WEIGHTS

COVERED = (WEIGHTS, MODEL, CLASSES, SPLIT, FILES, STARTED)
"""Files in the list, in the order in which those that change together are written."""

# A file and the list may change while they are read: a training saves its best model beside an evaluation.
_TRIES = 5
_WAIT = 0.2  # seconds


def write_covered(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of the list with their digests; killed at any moment, every file still has a valid digest.

    In between, the digests of the old and of the new content of a file are both valid.
    """
    old = _read_list(directory) if (directory / DIGESTS).exists() else {}
    new = {name: [hashlib.sha256(contents[name]).hexdigest()] for name in COVERED if name in contents}
    write_json(directory / DIGESTS, old | {name: new[name] + old.get(name, []) for name in new})
    for name in new:
        write_bytes(directory / name, contents[name])
    write_json(directory / DIGESTS, old | new)


def read_checked(path: Path) -> bytes:
    """Read a file of a run; one that is in the list only as it was written.

    Raises:
        CheckpointError: it is not what the run wrote.
        OSError: it is not there, or cannot be read.
    """
    for _ in range(_TRIES):
        content = path.read_bytes()
        if path.name not in COVERED or _is_valid(path, hashlib.sha256(content).hexdigest()):
            return content
        time.sleep(_WAIT)
    raise _altered(path)


def check_file(path: Path) -> None:
    """Make sure that a file of the list is what the run wrote, without holding it in memory.

    Raises:
        CheckpointError: it is not.
        OSError: it is not there, or cannot be read.
    """
    for _ in range(_TRIES):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _is_valid(path, digest):
            return
        time.sleep(_WAIT)
    raise _altered(path)


def _is_valid(path: Path, digest: str) -> bool:
    return digest in _read_list(path.parent).get(path.name, [])


def _altered(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or was changed: its SHA-256 is not the one in {DIGESTS}.\n"
        "Restore the file from a copy, or train again; the files of a run cannot be edited."
    )


def _read_list(directory: Path) -> dict[str, list[str]]:
    path = directory / DIGESTS
    try:
        listed = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: it was removed, or the run is of an earlier version of finetune.\n"
            "Restore the file, use the version that wrote the run, or train again."
        ) from None
    except ValueError:
        listed = None
    if not isinstance(listed, dict) or not all(isinstance(digests, list) for digests in listed.values()):
        raise CheckpointError(f"{path} is damaged.\nRestore the file from a copy, or train again.")
    return listed
