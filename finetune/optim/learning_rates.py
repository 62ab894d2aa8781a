"""Learning rates: what the config writes, and what each layer group gets."""

import math
import re
from dataclasses import dataclass

from finetune.choices import Spacing

LOWEST_RATE = 1e-12
"""Below, float32 weights stay where they are for a whole training."""
HIGHEST_RATE = 1e30
"""Above, a step cannot be computed in float32; far below it training diverges, and says so."""

_MOST_DIVISOR = 1e9  # of slice(auto/100, auto)

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SLICE = re.compile(rf"slice\(\s*({_NUMBER})\s*(?:,\s*({_NUMBER})\s*)?\)")
_AUTO_SLICE = re.compile(rf"slice\(\s*auto\s*(?:/\s*({_NUMBER})\s*,\s*auto\s*)?\)")

_FORMS = (
    "write 1e-3, slice(1e-3) or slice(1e-5, 1e-3), or let the rate be found: "
    "auto, slice(auto) or slice(auto/100, auto)"
)


@dataclass(frozen=True)
class LearningRate:
    """The peak learning rate of a stage: `1e-3`, `slice(1e-3)`, `slice(1e-5, 1e-3)`, or a rate to be found.

    A config is the only place that parses one; everywhere else it travels as it is, and prints itself.
    """

    last: float
    """Rate of the head; 1 where the rate is still to be found."""
    first: float | None = None
    """Rate of the first layer group; None where it was not given. A multiple of the head's if `auto`."""
    sliced: bool = False
    """Whether the groups before the head learn at lower rates: `slice(1e-3)`, not `1e-3`."""
    auto: bool = False
    """Whether the head's rate is still to be found."""

    def __str__(self) -> str:
        last = "auto" if self.auto else _shortest(self.last)
        if not self.sliced:
            return last
        if self.first is None:
            return f"slice({last})"
        return f"slice({self._divided() if self.auto else _shortest(self.first)}, {last})"

    def _divided(self) -> str:
        assert self.first is not None
        divisor = self.last / self.first
        short = f"{divisor:g}"
        return f"auto/{short if self.last / float(short) == self.first else repr(divisor)}"

    @property
    def written(self) -> float | str:
        """The rate as YAML and JSON hold it: a number, or one of the other forms as text."""
        return str(self) if self.sliced or self.auto else self.last

    def peaking_at(self, last: float) -> "LearningRate":
        """Return the rate of the same form whose head learns at `last`, rounded to three digits."""
        last = float(f"{last:.3g}")
        first = None if self.first is None else float(f"{self.first * last / self.last:.3g}")
        return LearningRate(last=last, first=first, sliced=self.sliced)


def _shortest(number: float) -> str:
    """Write a number as people write rates, `1e-3` or `0.0025`, whichever is shorter.

    It reads back to the very same number, for which six digits are not always enough.
    """
    mantissa, exponent = f"{number:e}".split("e")
    scientific = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    short = min(f"{number:g}", scientific, key=len)
    return short if float(short) == number else repr(number)


def parse_lr(written: float | str) -> LearningRate:
    """Read a learning rate in any of its forms.

    Raises:
        ValueError: not one of the forms, beyond what float32 computes with, or a slice that goes down.
    """
    if isinstance(written, str):
        written = " ".join(written.split())  # YAML keeps an empty line in quotes as a line break
        if "auto" in written:
            return _parse_auto(written)
        match = _SLICE.fullmatch(written)
        if match is None:
            raise ValueError(f"{written!r} is not a rate; {_FORMS}")
        numbers = [float(text) for text in match.groups() if text is not None]
    else:
        numbers = [float(written)]
    for number in numbers:
        if not (number > 0 and math.isfinite(number)):
            raise ValueError(f"{written} holds the rate {number:g}; a rate must be positive and finite")
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        raise ValueError(f"{written} goes down; the first rate must not exceed the last")
    first = numbers[0] if len(numbers) == 2 else None
    return check_bounds(LearningRate(last=numbers[-1], first=first, sliced=isinstance(written, str)))


def check_bounds(lr: LearningRate) -> LearningRate:
    """Return a rate that float32 can compute with.

    Raises:
        ValueError: it cannot.
    """
    numbers = [number for number in (lr.first, lr.last) if number is not None]
    for number in () if lr.auto else numbers:
        if not LOWEST_RATE <= number <= HIGHEST_RATE:
            raise ValueError(
                f"{lr} holds the rate {number:g}; a rate must lie between {LOWEST_RATE:g} and "
                f"{HIGHEST_RATE:g}, and most are between 1e-6 and 1"
            )
    return lr


def _parse_auto(written: str) -> LearningRate:
    if written == "auto":
        return LearningRate(last=1.0, auto=True)
    match = _AUTO_SLICE.fullmatch(written)
    if match is None:
        raise ValueError(f"{written!r} is not a rate; {_FORMS}")
    if match[1] is None:
        return LearningRate(last=1.0, sliced=True, auto=True)
    divisor = float(match[1])
    if not divisor >= 1:
        raise ValueError(f"{written} divides by {divisor:g}; the first rate must not exceed the last")
    if divisor > _MOST_DIVISOR:
        raise ValueError(f"{written} divides by {divisor:g}; at most {_MOST_DIVISOR:g} makes sense")
    return LearningRate(last=1.0, first=1 / divisor, sliced=True, auto=True)


def spread(lr: LearningRate, n_groups: int, *, divisor: float, spacing: Spacing) -> list[float]:
    """Return the peak learning rate of each layer group, from the first to the head.

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
