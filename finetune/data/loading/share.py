"""Which rows of a batch, and which batches, each of several ranks goes through."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from finetune.machine.ranks import Ranks

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class BatchShare:
    """The rows of each training batch that one rank goes through."""

    ranks: Ranks
    images: int
    """In a whole batch: those of an optimizer step."""
    parts: int = 1
    """Into which it is divided; each rank has its rows of every part."""
    with_partner: bool = False
    """Whether the row before its own is loaded as well, with which its first is mixed."""

    @property
    def part(self) -> int:
        """The images of a part."""
        return self.images // self.parts

    @property
    def first(self) -> int:
        """Its first row in a part."""
        whole, rest = divmod(self.part, self.ranks.size)
        return self.ranks.rank * whole + min(self.ranks.rank, rest)

    @property
    def number(self) -> int:
        """How many rows of a part are its own."""
        whole, rest = divmod(self.part, self.ranks.size)
        return whole + (self.ranks.rank < rest)

    def of_all(self) -> "list[BatchShare]":
        """Return the shares of all ranks."""
        return [replace(self, ranks=replace(self.ranks, rank=rank)) for rank in range(self.ranks.size)]

    def rows(self) -> list[int]:
        """Return the rows of a whole batch that it loads: of each part, in order."""
        partner = [(self.first - 1) % self.part] if self.with_partner else []
        own = [*partner, *range(self.first, self.first + self.number)]
        return [start * self.part + row for start in range(self.parts) for row in own]

    def gather(self, rows: Tensor) -> Tensor:
        """Put the rows (n, …) that the ranks have of one or more batches together, in order; no partners."""
        batches = len(rows) // (self.number * self.parts)
        own = [batch * self.images + row for batch in range(batches) for row in self.rows()]
        return self.ranks.gather(rows, own, batches * self.images)


@dataclass(frozen=True)
class EvalShare:
    """The batches of a pass over images that one rank goes through: every one of so many as there are ranks.

    Batches are computed whole, as by one process. Where they cannot be divided evenly, ranks go through one
    that is another's: all have equally many.
    """

    ranks: Ranks
    images: int
    batch_size: int

    def batches(self) -> list[int]:
        """Return the numbers of its batches."""
        total = -(-self.images // self.batch_size)
        rounds = -(-total // self.ranks.size)
        own = (number * self.ranks.size + self.ranks.rank for number in range(rounds))
        return [number if number < total else 0 for number in own]

    def positions(self) -> list[int]:
        """Return the positions of the images of its batches."""
        return [position for number in self.batches() for position in self._of_batch(number)]

    def gather(self, rows: Tensor) -> Tensor:
        """Put the rows (n, …) that the ranks made of their images together, in order."""
        own = self.positions()
        if self.batches()[-1] == 0 < self.ranks.rank:
            own = own[: -len(self._of_batch(0))]
        return self.ranks.gather(rows[: len(own)], own, self.images)

    def _of_batch(self, number: int) -> range:
        return range(number * self.batch_size, min((number + 1) * self.batch_size, self.images))


def in_shares(
    keys: Sequence[_Key],
    batch_size: int,
    ranks: Ranks,
    compute: Callable[[Sequence[_Key]], Iterable[tuple[Tensor, ...]]],
) -> Iterator[tuple[Tensor, ...]]:
    """Return what `compute` makes of each batch of keys, of which each rank computes its own batches.

    `compute` takes the keys of several batches and returns tensors, whose rows are the keys of a batch.
    """
    if ranks.alone or not keys:
        yield from compute(keys)
        return
    share = EvalShare(ranks, len(keys), batch_size)
    made = iter(compute([keys[position] for position in share.positions()]))
    for number in range(len(share.batches())):
        start = number * ranks.size * batch_size
        rows = min(len(keys) - start, ranks.size * batch_size)
        own_start = ranks.rank * batch_size
        batch, own = next(made), range(own_start, min(own_start + batch_size, rows))
        parts = [ranks.gather(part[: len(own)], own, rows) for part in batch]
        for first in range(0, rows, batch_size):
            yield tuple(part[first : first + batch_size] for part in parts)
