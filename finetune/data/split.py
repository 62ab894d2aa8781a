"""Which samples are held out, and which are kept, as a function of seed and name alone.

Samples are ranked by a hash of their name. The order of the files or of the file system cannot matter, and a
file that is added takes its place in the ranking without moving the others: at most one other sample changes
sides, to keep the fraction.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from finetune.seed import derive, derive_each

_DEALS = 100  # orders in which groups are dealt; the best of them counts
_MOST_DEALT = 10_000  # groups in all orders together, so that many groups are dealt in seconds
_PASSES = 20  # over all groups, to move them one by one to better parts; it ends as soon as none moves
_ALL = -1  # stands for all classes together, where classes are counted
_ABSENT, _NOWHERE_ELSE = 1.0, 100.0  # a class that a part lacks; a class that only a held-out part has


class Fold(NamedTuple):
    """One part of a cross-validation: fold `number` of `of`, from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"fold {self.number} of {self.of}"


Validation = float | str | Fold
"""What to validate on: a fraction, `auto`, the name of a folder, the path of a table, or a fold."""


def stratified_split(
    names: Sequence[str], targets: Sequence[int], *, fraction: float, seed: int
) -> list[bool]:
    """Tell for each sample whether it is held out for validation.

    Of each class the nearest whole number to `fraction` of its samples is held out, at least one, and at
    least one is left to train on.

    Args:
        names: what identifies each sample, without repetition.
        targets: the class of each sample.
        fraction: part to hold out, 0 < fraction < 1.
        seed: the seed of the experiment.

    Raises:
        ValueError: the fraction is not between 0 and 1, or a class has fewer than two samples.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction to hold out is {fraction}; it must lie between 0 and 1")
    held_out = [False] * len(names)
    for target, ranked in _ranked_by_class(names, targets, seed, "split").items():
        if len(ranked) < 2:
            raise ValueError(f"class {target} has {len(ranked)} sample; a split needs two")
        count = min(max(round(fraction * len(ranked)), 1), len(ranked) - 1)
        for position in ranked[:count]:
            held_out[position] = True
    return held_out


def stratified_folds(names: Sequence[str], targets: Sequence[int], *, folds: int, seed: int) -> list[int]:
    """Tell for each sample which fold it is in, 0 … folds − 1; every fold has its share of every class.

    The sizes of two folds differ by at most one sample of each class, and by at most one of all.

    Raises:
        ValueError: a class has fewer than two samples.
    """
    fold_of, dealt = [0] * len(names), 0
    for target, ranked in sorted(_ranked_by_class(names, targets, seed, "split").items()):
        if len(ranked) < 2:
            raise ValueError(f"class {target} has {len(ranked)} sample; a split needs two")
        for position in ranked:
            fold_of[position] = dealt % folds
            dealt += 1
    return fold_of


def grouped_split(groups: Sequence[str], targets: Sequence[int], *, fraction: float, seed: int) -> list[bool]:
    """Tell for each sample whether it is held out, where all samples of a group share their fate.

    As near to `fraction` of each class, and of all samples, is held out as whole groups allow. A class with
    several groups is on both sides wherever that can be; a class that only one group has is left to train on.
    """
    parts = _deal(groups, targets, shares=(fraction, 1 - fraction), held_out=1, seed=seed)
    return [part == 0 for part in parts]


def grouped_folds(groups: Sequence[str], targets: Sequence[int], *, folds: int, seed: int) -> list[int]:
    """Tell for each sample which fold it is in, 0 … folds − 1, where all samples of a group are in one."""
    return _deal(groups, targets, shares=(1 / folds,) * folds, held_out=folds, seed=seed)


def limit_per_class(names: Sequence[str], targets: Sequence[int], *, limit: int, seed: int) -> list[bool]:
    """Tell for each sample whether it is among the `limit` that are kept of its class."""
    kept = [False] * len(names)
    for ranked in _ranked_by_class(names, targets, seed, "images_per_class").values():
        for position in ranked[:limit]:
            kept[position] = True
    return kept


def _ranked_by_class(
    names: Sequence[str], targets: Sequence[int], seed: int, purpose: str
) -> dict[int, list[int]]:
    """Return the positions of each class's samples in the order of their hash."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for position, target in enumerate(targets):
        by_class[target].append(position)
    ranks = derive_each(seed, purpose, names)
    for positions in by_class.values():
        positions.sort(key=lambda position: (ranks[position], names[position]))
    return by_class


def _deal(
    groups: Sequence[str], targets: Sequence[int], *, shares: Sequence[float], held_out: int, seed: int
) -> list[int]:
    """Deal whole groups to parts, so that each part has about its share of every class.

    Groups are dealt one after the other, each to the part that gains the most by it, and then moved one by
    one as long as that helps. It is done in several orders, which the seed decides; the best outcome counts.

    Args:
        groups: the group of each sample.
        targets: the class of each sample.
        shares: the part of all samples that each part should get.
        held_out: how many of the parts, from the first, are kept from training at some time.
        seed: the seed of the experiment.
    """
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for group, target in zip(groups, targets, strict=True):
        counts[group].update((target, _ALL))
    sizes = {group: sorted(of_group.items()) for group, of_group in counts.items()}
    costs = _Costs(sizes, shares, held_out)
    deals = (
        _Deal(sizes, costs, order=sorted(counts, key=lambda g: (derive(seed, "deal", n, g), g)))
        for n in range(max(1, min(_DEALS, _MOST_DEALT // len(counts))))
    )
    best = min(deals, key=lambda deal: deal.cost)
    return [best.part_of[group] for group in groups]


_Sizes = Mapping[str, Sequence[tuple[int, int]]]  # of each group: its classes, and how many samples of each


class _Costs:
    """What it costs that a part has so many samples of a class."""

    def __init__(self, sizes: _Sizes, shares: Sequence[float], held_out: int) -> None:
        self._shares, self._held_out = shares, held_out
        self.parts = range(len(shares))
        self.totals: Counter[int] = Counter()
        for of_group in sizes.values():
            for target, size in of_group:
                self.totals[target] += size
        self.of = cache(self._of)  # every deal asks for the same numbers again and again

    def _of(self, part: int, target: int, number: int) -> float:
        total = self.totals[target]
        distance = (number / total - self._shares[part]) ** 2
        absent = _ABSENT if number == 0 else 0.0
        return distance + absent + (_NOWHERE_ELSE if number == total and part < self._held_out else 0.0)


class _Deal:
    """Groups dealt to parts in one order, and how far the parts are from their shares."""

    def __init__(self, sizes: _Sizes, costs: _Costs, *, order: Sequence[str]) -> None:
        self._sizes, self._costs = sizes, costs
        self._filled = [dict.fromkeys(costs.totals, 0) for _ in costs.parts]
        self.part_of: dict[str, int] = {}
        for group in order:
            self._put(group, min(costs.parts, key=lambda part: self._change(group, part, 1)))
        for _ in range(_PASSES):
            if not sum([self._improve(group) for group in order]):
                break

    @property
    def cost(self) -> float:
        """Return the squared distances from the shares, over all parts and classes."""
        targets = sorted(self._costs.totals)
        return sum([self._costs.of(p, c, self._filled[p][c]) for p in self._costs.parts for c in targets])

    def _improve(self, group: str) -> bool:
        """Move a group to the part where it does the most good; say whether it moved."""
        old = self.part_of[group]
        leaving = self._change(group, old, -1)
        gains = {p: leaving + self._change(group, p, 1) for p in self._costs.parts if p != old}
        new = min(gains, key=lambda part: gains[part])
        if gains[new] > -1e-12:  # less is rounding, and could go round in circles
            return False
        for target, size in self._sizes[group]:
            self._filled[old][target] -= size
        self._put(group, new)
        return True

    def _put(self, group: str, part: int) -> None:
        self.part_of[group] = part
        for target, size in self._sizes[group]:
            self._filled[part][target] += size

    def _change(self, group: str, part: int, sign: int) -> float:
        """Return what it costs a part to get a group (`sign` 1) or to lose it (−1)."""
        filled, cost, sizes = self._filled[part], self._costs.of, self._sizes[group]
        return sum([cost(part, c, filled[c] + sign * size) - cost(part, c, filled[c]) for c, size in sizes])
