"""Wait for the other ranks, and notice within seconds where one of them ends before all have met."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from finetune.machine.presence import Presence
from finetune.machine.ranks import Ranks

ANY_END = "ended"
"""The key of the store that is set once any rank has left its note."""

_LOOK = 0.05
_BEAT = 1.0
"""seconds between two signs of life"""
_SILENCE = 20.0
"""seconds without one after which a rank that others have heard of is taken for ended"""

_Value = TypeVar("_Value")


class Watch:
    """What a rank notices of the others while it waits for them.

    Those on its machine are seen by their files. Each also watches the next rank, wherever it is, by signs of
    life in the store; what it notices stands in its note, which all read.
    """

    def __init__(self, ranks: Ranks, presence: Presence) -> None:
        """Begin to watch the ranks that are connected."""
        assert ranks.line is not None
        self._ranks, self._presence, self._store = ranks, presence, ranks.line.store
        self._next = (ranks.rank + 1) % ranks.size
        self._heard, self._heard_at = b"", time.monotonic()
        self._beats, self._beat_at = 0, 0.0

    def wait_for_all(self, seconds: float) -> None:
        """Wait until all ranks are connected.

        Raises:
            FinetuneError: one of them has ended.
            TimeoutError: some have not come in time.
        """
        missing, last = list(range(self._ranks.size)), time.monotonic() + seconds
        while missing := [rank for rank in missing if not self._store.check([f"ready/{rank}"])]:
            if time.monotonic() > last:
                raise TimeoutError(f"rank {missing[0]} has not come within {seconds:.0f} s")
            self.look()
            time.sleep(_LOOK)

    def look(self) -> None:
        """Show that this rank is alive, and look whether the others are.

        Raises:
            FinetuneError: one of them has ended.
        """
        try:
            self._look()
        except RuntimeError as error:  # of torch's network
            self._ranks.report(error)

    def _look(self) -> None:
        if self._store.check([ANY_END]):
            self._ranks.report(RuntimeError("they have not met"))
        if gone := self._presence.gone():
            self._ranks.lose(gone)
        now = time.monotonic()
        if now - self._beat_at < _BEAT:
            return
        self._beat_at, self._beats = now, self._beats + 1
        self._store.set(f"alive/{self._ranks.rank}", str(self._beats))
        heard = self._store.get(key) if self._store.check([key := f"alive/{self._next}"]) else b""
        if not heard or heard != self._heard or self._store.check([f"met/{self._next}"]):
            self._heard, self._heard_at = heard, now
        elif now - self._heard_at > _SILENCE:
            self._ranks.lose([self._next])


def in_thread(work: Callable[[], _Value], look: Callable[[], None], seconds: float) -> _Value:
    """Return what a function of torch's network does that hears no signal and may wait without end.

    Args:
        work: the function.
        look: called again and again meanwhile; what it raises ends the wait.
        seconds: how long to wait.

    Raises:
        TimeoutError: it has not come to an end.
    """
    done: Future[_Value] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        try:
            return done.result(_LOOK)
        except TimeoutError:
            if done.done():
                raise
            look()
    raise TimeoutError
