"""Which samples are held out, and which are kept, as a function of seed and name alone.

Samples are ranked by a hash of their name. The order of the files or of the file system cannot matter, and a
file that is added takes its place in the ranking without moving the others: at most one other sample changes
sides, to keep the fraction.
"""

from collections import defaultdict
from collections.abc import Sequence

from finetune.seed import derive


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
    """Give the positions of each class's samples in the order of their hash."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for position, target in enumerate(targets):
        by_class[target].append(position)
    for positions in by_class.values():
        positions.sort(key=lambda position: (derive(seed, purpose, names[position]), names[position]))
    return by_class
