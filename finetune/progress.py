"""How far a piece of work has come: whoever does it moves a bar, and need not know where it is shown."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar:
    """Progress of one piece of work; this one shows nothing."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._advanced = 0

    def rate(self, done: int) -> float:
        """Return the units per second so far."""
        return done / max(time.perf_counter() - self._started, 1e-9)

    def advance_to(self, done: int | None, note: str = "") -> None:
        """Say that `done` units are done (None: as many as before); `note` stands beside the bar."""

    def advance_by(self, more: int) -> None:
        """Say that `more` units are done than at the last call of this."""
        self._advanced += more
        self.advance_to(self._advanced)


class NewBar(Protocol):
    """Starts a bar for `total` units of work (None where nobody knows): `Display.bar`, or `no_bar`."""

    def __call__(self, label: str, total: int | None, unit: str = "images") -> AbstractContextManager[Bar]:
        """Show the bar until the context ends."""
        ...


def amount(done: int, total: int | None, unit: str) -> str:
    """Say how much is done: `5/10 images`, or `5 files` where nobody knows how many there are."""
    return f"{done} {unit}" if total is None else f"{done}/{total} {unit}"


def speed(rate: float) -> str:
    """Say how fast something goes, in units per second; of what takes longer, the seconds for each."""
    return f"{1 / rate:.1f} s each" if 0 < rate < 0.95 else f"{rate:.0f}/s"


@contextmanager
def no_bar(label: str, total: int | None, unit: str = "images") -> Iterator[Bar]:
    """Start a bar that shows nothing."""
    yield Bar()
