"""Learning rates: what the config writes, and what each layer group gets."""

import math
import re
from dataclasses import dataclass
from typing import Literal

Spacing = Literal["geometric", "linear"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SLICE = re.compile(rf"slice\(\s*({_NUMBER})\s*(?:,\s*({_NUMBER})\s*)?\)")


@dataclass(frozen=True)
class LearningRate:
    """A peak learning rate as written: `1e-3`, `slice(1e-3)` or `slice(1e-5, 1e-3)`.

    `last` is the head's rate. `first` is the rate of the first group, `None` when it was not given.
    `sliced` tells `slice(1e-3)` (a lower rate for all but the head) from a plain `1e-3`.
    """

    last: float
    first: float | None = None
    sliced: bool = False

    def __str__(self) -> str:
        if not self.sliced:
            return f"{self.last:g}"
        return f"slice({self.last:g})" if self.first is None else f"slice({self.first:g}, {self.last:g})"


def parse_lr(written: float | str) -> LearningRate:
    """Read a learning rate in any of its three forms.

    Raises:
        ValueError: not one of the forms, not positive and finite, or a slice that goes down.
    """
    if isinstance(written, str):
        match = _SLICE.fullmatch(written.strip())
        if match is None:
            raise ValueError(f"{written!r} is not a rate; write 1e-3, slice(1e-3) or slice(1e-5, 1e-3)")
        numbers = [float(text) for text in match.groups() if text is not None]
    else:
        numbers = [float(written)]
    for number in numbers:
        if not (number > 0 and math.isfinite(number)):
            raise ValueError(f"{written} holds the rate {number:g}; a rate must be positive and finite")
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        raise ValueError(f"{written} goes down; the first rate must not exceed the last")
    first = numbers[0] if len(numbers) == 2 else None
    return LearningRate(last=numbers[-1], first=first, sliced=isinstance(written, str))


def spread(lr: LearningRate, n_groups: int, *, divisor: float, spacing: Spacing) -> list[float]:
    """Give the peak learning rate of each layer group, from the first to the head.

    A plain rate is the same for every group; `slice(hi)` gives `hi` to the head and `hi / divisor` to all
    others; `slice(lo, hi)` goes from `lo` to `hi` by equal ratios (`geometric`, as fastai's `even_mults`)
    or by equal differences (`linear`).
    """
    if not lr.sliced or n_groups == 1:
        return [lr.last] * n_groups
    if lr.first is None:
        return [lr.last / divisor] * (n_groups - 1) + [lr.last]
    low, high, last = lr.first, lr.last, n_groups - 1
    if spacing == "linear":
        between = [low + (high - low) * i / last for i in range(1, last)]
    else:
        between = [low * (high / low) ** (i / last) for i in range(1, last)]
    return [low, *between, high]
