"""Look at many image files at once, in processes of their own.

Pillow holds Python's lock for much of a small image, so threads alone leave cores idle.

Not by joblib's loky, because of what becomes of its workers: 10 seconds after the main process was killed all
of its 4 processes were still there, ours had gone within 2. It also took longer (1,000 JPEGs of 500 × 375 in
2 processes, start included: 6.5 s against 4.9 s), and joblib is 0.36 s more to import.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, TypeVar

from finetune.data.image_files import archive_of
from finetune.data.images.decode import ImageError, ImageInfo, inspect_image
from finetune.data.images.limits import ImageLimits
from finetune.data.images.look import Look, look_at_image
from finetune.errors import ResourceError
from finetune.machine.cores import in_threads, usable_cores
from finetune.machine.helper import start_helper

_PATIENCE = 1.0  # seconds of work for this process alone, in which small data sets are done
_WORTH_PROCESSES = 2.0  # seconds of work that must be left; starting processes takes about one
_COMPUTING = 0.5  # share of the time that is spent computing, above which more processes help
_CHUNK = 16  # images handed to a process at a time
_AHEAD = 4  # chunks that wait for each process, so that a slow image holds up no other
_MOST_PROCESSES = 16
_MOST_MEMBERS = 200_000  # of a ZIP, of which each process holds a table: 70 MB, read in two seconds

_Path = str | Path
_Found = TypeVar("_Found")
_Study = Callable[[_Path, ImageLimits], _Found]
"""what is done with a file; it raises an ImageError if that cannot be done"""


def look_at_images(
    paths: Sequence[_Path], limits: ImageLimits, *, processes: int | None = None
) -> Iterator[Look | str]:
    """Return a look at each file, or the reason why it cannot be read, in order.

    Args:
        paths: the files.
        limits: what is accepted, as for reading.
        processes: how many share the work, 0 for this one alone; `None` starts with this one,
            and adds others, one for each core, where it would take long.

    Raises:
        ResourceError: a process was killed.
    """
    if processes == 0:
        yield from (_studied(look_at_image, path, limits) for path in paths)
    elif processes is not None:
        yield from _in_processes(look_at_image, paths, limits, processes)
    else:
        rest = yield from _at_first(look_at_image, paths, limits)
        yield from _in_processes(look_at_image, rest, limits, min(usable_cores(), _MOST_PROCESSES))


def inspect_images(paths: Sequence[_Path], limits: ImageLimits) -> Iterator[ImageInfo | str]:
    """Return what `inspect_image` says of each file, or the reason why it cannot be read, in order.

    It starts with this process, and adds others where it would take long and is a matter of computing. Where
    it is one of waiting for storage, or of an archive whose directory takes long to read for each of them,
    threads wait for several files at once.

    Raises:
        ResourceError: a process was killed.
    """
    began, computed = time.monotonic(), time.thread_time()
    rest = yield from _at_first(inspect_image, paths, limits)
    computing = (time.thread_time() - computed) / (time.monotonic() - began + 1e-9)
    if rest and computing > _COMPUTING and not _takes_long_to_open(rest):
        yield from _in_processes(inspect_image, rest, limits, min(usable_cores(), _MOST_PROCESSES))
    else:
        for _, studied in in_threads(lambda path: _studied(inspect_image, path, limits), rest):
            yield studied


def _takes_long_to_open(paths: Sequence[_Path]) -> bool:
    """Tell whether files lie in an archive that other processes had better not open as well."""
    archive = archive_of(paths[0])
    return archive is not None and (archive.suffix.lower() != ".zip" or len(paths) > _MOST_MEMBERS)


def _at_first(
    study: _Study[_Found], paths: Sequence[_Path], limits: ImageLimits
) -> Generator[_Found | str, None, Sequence[_Path]]:
    """Study files in this process; return those that others had better do."""
    started, several = time.monotonic(), usable_cores() > 1
    for done, path in enumerate(paths, start=1):
        yield _studied(study, path, limits)
        passed = time.monotonic() - started
        left = (len(paths) - done) * passed / done
        if several and passed > _PATIENCE and left > _WORTH_PROCESSES:
            return paths[done:]
    return ()


def _in_processes(
    study: _Study[_Found], paths: Sequence[_Path], limits: ImageLimits, processes: int
) -> Iterator[_Found | str]:
    """Hand out the files in turn, a few chunks ahead, and take the results back in the same turn.

    The pools of the standard library wait forever for a process that was killed, or print the tracebacks that
    an interrupt leaves in their threads.
    """
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    helpers: list[_Helper[_Found]] = []
    try:
        while len(helpers) < min(processes, len(chunks)):
            helpers.append(_Helper(study, limits))
        ahead = len(helpers) * _AHEAD
        for turn in range(len(chunks) + ahead):
            if turn >= ahead:
                yield from helpers[(turn - ahead) % len(helpers)].take()
            if turn < len(chunks):
                helpers[turn % len(helpers)].give(chunks[turn])
    finally:
        for helper in helpers:
            helper.stop()


class _Helper(Generic[_Found]):
    """A process that studies the files it is sent."""

    def __init__(self, study: _Study[_Found], limits: ImageLimits) -> None:
        self._process, self._connection = start_helper(_serve, study, limits)

    def give(self, paths: Sequence[_Path]) -> None:
        with self._reported_death():
            self._connection.send(paths)

    def take(self) -> list[_Found | str]:
        with self._reported_death():
            found: list[_Found | str] = self._connection.recv()
            return found

    def stop(self) -> None:
        self._process.kill()  # whoever interrupts does not wait for a slow image or a disk that hangs
        self._process.join(1)
        self._connection.close()

    @contextmanager
    def _reported_death(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError):
            raise ResourceError(
                "A process that looked at images was killed, most likely for lack of memory.\n"
                "Set data.max_pixels lower, or give the command more memory."
            ) from None


def _serve(
    connection: "Connection[list[_Found | str], Sequence[_Path]]", study: _Study[_Found], limits: ImageLimits
) -> None:
    """Study the files that are sent, until the main process has gone."""
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send([_studied(study, path, limits) for path in connection.recv()])


def _studied(study: _Study[_Found], path: _Path, limits: ImageLimits) -> _Found | str:
    try:
        return study(path, limits)
    except ImageError as error:
        return error.reason
