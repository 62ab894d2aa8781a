"""Make a run directory or open one, and hold it while it is written to."""

import os
import re
import time
from contextlib import suppress
from os.path import exists, isdir, isfile
from pathlib import Path

from filelock import FileLock, Timeout

from finetune.errors import RunError
from finetune.runs.directory import Run, is_occupied
from finetune.runs.names import CLASSES, CONFIG, DIGESTS, FILES, LOCK, SPLIT, STARTED, STATUS


def create_run(
    directory: Path | None, *, parent: Path, name: str, overwrite: bool = False, resume: bool = False
) -> Run:
    """Make a new run directory and hold it.

    Args:
        directory: the directory to make, or None for `parent/<name>-<time>`.
        parent: folder of the unnamed runs.
        name: what an unnamed run is called after.
        overwrite: move a directory that is in the way to `<directory>.old-<time>`.
        resume: take a directory in which a run was killed while it wrote down its beginning.

    Raises:
        RunError: the directory holds something already, is held by another process, or cannot be written.
    """
    directory = directory if directory is not None else unused_folder(parent, name)
    run = Run(directory)
    try:
        if overwrite and is_occupied(directory):
            _hold(directory).release()
            directory.rename(unused_folder(directory.parent, f"{directory.name}.old"))
        directory.mkdir(parents=True, exist_ok=True)
        if is_occupied(directory) and not (resume and _has_only_a_beginning(directory)):
            raise RunError(
                f"{directory} is not empty; results are not overwritten without --overwrite.\n"
                "Name another --run-dir, add --resume to continue it, or --overwrite to move it aside."
            )
        run.hold(_hold(directory))
    except OSError as error:
        raise _unwritable(directory, error) from None
    return run


def resume_run(directory: Path) -> Run:
    """Hold the directory of a run that is to be resumed.

    Raises:
        RunError: not a run's directory, held by another process, or cannot be written.
    """
    run = Run(directory)
    run.read_json(STARTED)
    try:
        run.hold(_hold(directory))
    except OSError as error:
        raise _unwritable(directory, error) from None
    return run


def find_run(parent: Path, name: str) -> Path | None:
    """Return the newest of the unnamed runs called after `name`; None if there is none."""
    return newest_folder(parent, name, STARTED)


def unused_folder(parent: Path, name: str) -> Path:
    """Return the path of a new folder that is called after `name` and the time."""
    first = parent / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidate, number = first, 2
    while exists(candidate):
        candidate, number = first.with_name(f"{first.name}-{number}"), number + 1
    return candidate


def newest_folder(parent: Path, name: str, file: str) -> Path | None:
    """Return the newest of the folders that `unused_folder` has named and that hold a file; None if none."""
    stamped = re.compile(rf"{re.escape(name)}-(\d{{8}}-\d{{6}})(?:-(\d+))?")
    found = [
        (match[1], int(match[2] or 1), path)
        for path in (parent.iterdir() if isdir(parent) else ())
        if (match := stamped.fullmatch(path.name)) and isfile(path / file)
    ]
    return max(found)[2] if found else None


def open_run(directory: Path) -> Run:
    """Open an existing run directory for reading."""
    return Run(directory)


def _hold(directory: Path) -> FileLock:
    """Lock the directory for this process; the lock vanishes with the process, however it ends.

    Processes that were forked while it was held, such as loader workers, do not hold it: a run that was
    killed can be resumed at once, though they take some seconds to notice.
    """
    path = directory / LOCK
    # Not of one thread: the Python API may be left from another one than it was entered from.
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{directory} is in use by {_holder(path)}. Wait for it, or name another --run-dir."
        ) from None
    # For the message of others. Windows lets nobody write to what is locked, the holder included.
    with suppress(PermissionError):
        path.write_text(f"process {os.getpid()} on {_machine()}", encoding="utf-8")
    return lock


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip() or "another process"
    return "another process"


def _machine() -> str:
    return os.uname().nodename if os.name == "posix" else "this machine"


def _has_only_a_beginning(directory: Path) -> bool:
    """Tell whether nothing is there but what a run writes before it trains, whole or not."""
    beginning = {LOCK, CONFIG, CLASSES, SPLIT, FILES, DIGESTS, STATUS}
    names = {path.name for path in directory.iterdir()}
    return names <= beginning | {f".{name}.tmp" for name in (*beginning, STARTED)}


def _unwritable(directory: Path, error: OSError) -> RunError:
    reason = error.strerror or str(error)
    return RunError(f"Cannot write the run directory {directory}: {reason}. Set output.dir or --run-dir.")
