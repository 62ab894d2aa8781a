"""Look at many image files at once, in processes of their own.

Pillow holds Python's lock for much of a small image, so threads alone leave cores idle.

Not by joblib's loky, because of what becomes of its workers: 10 seconds after the main process was killed all
of its 4 processes were still there, ours had gone within 2. It also took longer (1,000 JPEGs of 500 × 375 in
2 processes, start included: 6.5 s against 4.9 s), and joblib is 0.36 s more to import.
"""

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

from finetune.data.images.decode import ImageError
from finetune.data.images.limits import ImageLimits
from finetune.data.images.look import Look, look_at_image
from finetune.errors import ResourceError
from finetune.machine.cores import usable_cores
from finetune.machine.signals import ASKING

_PATIENCE = 1.0  # seconds of work for this process alone, in which small data sets are done
_WORTH_PROCESSES = 2.0  # seconds of work that must be left; starting processes takes about one
_CHUNK = 16  # images handed to a process at a time
_AHEAD = 4  # chunks that wait for each process, so that a slow image holds up no other
_MOST_PROCESSES = 16


def look_at_images(
    paths: Sequence[Path], limits: ImageLimits, *, processes: int | None = None
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
        yield from (_look(path, limits) for path in paths)
    elif processes is not None:
        yield from _in_processes(paths, limits, processes)
    else:
        done, started, cores = 0, time.monotonic(), usable_cores()
        for done, path in enumerate(paths, start=1):
            yield _look(path, limits)
            passed = time.monotonic() - started
            left = (len(paths) - done) * passed / done
            if cores > 1 and passed > _PATIENCE and left > _WORTH_PROCESSES:
                break
        yield from _in_processes(paths[done:], limits, min(cores, _MOST_PROCESSES))


def _in_processes(paths: Sequence[Path], limits: ImageLimits, processes: int) -> Iterator[Look | str]:
    """Hand out the files in turn, a few chunks ahead, and take the results back in the same turn.

    The pools of the standard library wait forever for a process that was killed, or print the tracebacks that
    an interrupt leaves in their threads; and forked processes would inherit locks that threads of torch hold.
    """
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    helpers: list[_Helper] = []
    try:
        while len(helpers) < min(processes, len(chunks)):
            helpers.append(_Helper(limits))
        ahead = len(helpers) * _AHEAD
        for turn in range(len(chunks) + ahead):
            if turn >= ahead:
                yield from helpers[(turn - ahead) % len(helpers)].take()
            if turn < len(chunks):
                helpers[turn % len(helpers)].give(chunks[turn])
    finally:
        for helper in helpers:
            helper.stop()


class _Helper:
    """A process that looks at the files it is sent."""

    def __init__(self, limits: ImageLimits) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, limits), daemon=True)
        with _signals_held_back():
            self._process.start()
        theirs.close()

    def give(self, paths: Sequence[Path]) -> None:
        with self._reported_death():
            self._connection.send(paths)

    def take(self) -> list[Look | str]:
        with self._reported_death():
            looks: list[Look | str] = self._connection.recv()
            return looks

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


def _serve(connection: "Connection[list[Look | str], Sequence[Path]]", limits: ImageLimits) -> None:
    """Look at the files that are sent, until the main process has gone."""
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send([_look(path, limits) for path in connection.recv()])


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block stop signals in a process that is started here, for good: the main process stops it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which would let the signals in again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look(path: Path, limits: ImageLimits) -> Look | str:
    try:
        return look_at_image(path, limits)
    except ImageError as error:
        return error.reason
