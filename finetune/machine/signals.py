"""Signals that ask a training to stop: noticed everywhere, and in a step only after it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import CDLL
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # torch, for which commands that only wait for a signal do not wait
    from finetune.machine.ranks import Ranks

GRACE = 25.0
"""seconds that a step may still take; what launchers grant before they kill is often 30"""

_SENT_ON = 2.0  # seconds within which a launcher passes on a signal that its processes have received as well

ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""what asks a training to stop; Windows has no SIGUSR1"""


class StopSignals:
    """While it is entered, SIGINT, SIGTERM and SIGUSR1 ask to stop.

    The first one raises KeyboardInterrupt where it arrives; within `deferred` it only sets `received`, and
    raises if after `GRACE` seconds the work has not come to an end. The second one raises anywhere.

    Of several ranks each may receive one; they stop where all learn of it, in `asked`.
    """

    def __init__(self, ranks: "Ranks | None" = None) -> None:
        self._ranks = ranks
        self._number, self._at = 0, 0.0
        self.received: str | None = None
        """The first signal that came."""
        self.insisted = False
        """Whether another one came."""
        self._deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others can set no handlers
            for number in ASKING:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._set_alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the work within look at `received` where it can stop; it must do so often."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def asked(self, *, also: bool = False) -> bool:
        """Tell whether a signal came, to this rank or to another; all ranks ask in the same places.

        It is true as well where rank 0 has something else to do there, of which it tells the others so.
        """
        if self._ranks is None or self._ranks.alone:
            return self.received is not None or also
        ranks = self._ranks
        own = self._number * ranks.size + ranks.rank if self._number else int(also and ranks.is_first)
        sent = ranks.largest(own)
        if sent > 1 and self.received is None:  # no signal has a number below 1
            self.received = f"{signal.Signals(sent // ranks.size).name} to rank {sent % ranks.size}"
        return sent > 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None or (not self._number and self._ranks is not None):
            self.received, self._number = signal.Signals(number).name, number
            self._at = time.monotonic()
            if self._deferred:
                self._set_alarm(GRACE)
                if self._ranks is None or self._ranks.is_first:
                    _acknowledge(self.received)
                return
        elif self._is_the_same(number):
            return
        else:
            self.insisted = True
        raise KeyboardInterrupt

    def _is_the_same(self, number: int) -> bool:
        """Tell whether what came was sent on by torchrun or a container, and is no second wish.

        Slurm signals every process of a job, and Apptainer passes on what it receives.
        """
        launched = self._ranks is not None and not self._ranks.alone
        copied = number == self._number and number != signal.SIGINT  # people press Ctrl-C twice
        return (launched or copied) and time.monotonic() - self._at < _SENT_ON

    def _set_alarm(self, seconds: float) -> None:
        if not (self._before and hasattr(signal, "setitimer")):
            return
        if seconds:
            self._before.setdefault(signal.SIGALRM, signal.signal(signal.SIGALRM, self._too_late))
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _too_late(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt


def _acknowledge(name: str) -> None:
    """Say at once that a signal came: a step may take long, and who hears nothing presses again."""
    text = f"{name}: stopping after this step; press again to stop at once\n"
    with suppress(OSError):
        # Not through sys.stderr: the signal may have come in the midst of a print. The codes clear a bar.
        os.write(2, (("\r\x1b[2K" if os.isatty(2) else "") + text).encode())


def end_with_parent(number: int) -> None:
    """Have Linux send this process a signal when its parent ends, however it ends; other systems do not."""
    if sys.platform.startswith("linux"):
        set_parent_death_signal = 1
        CDLL(None).prctl(set_parent_death_signal, number)


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, through everything that cleans up after it.

    Only the first signal raises, as who presses twice would break the clean-up. Within an import none does:
    libraries swallow what interrupts theirs, and the command would go on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        at_start = before[signal.SIGINT]
        if callable(at_start) and is_importing(frame):
            at_start(number, frame)
        raise KeyboardInterrupt

    for number, handler in before.items():
        if number == signal.SIGTERM or handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_importing(frame: FrameType | None) -> bool:
    """Tell whether a module is being loaded."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
