"""The curves of one stage, cut into parts so that the one-cycle schedule does not mislead.

A loss always flattens at the end of a cycle, because the rate goes to 0. So whether it still falls is judged
by parts in which the rates add up to the same, not by parts with equally many steps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.optim.learning_rates import LearningRate
from finetune.runs.history import EpochRow

# A mean over fewer steps than this is mostly noise.
_LEAST_STEPS = 4
_MOST_PARTS = 10

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Consecutive optimizer steps."""

    first: int
    last: int
    """Numbers of the first and the last step, from 1."""
    loss: float
    """Mean, in nats."""
    error: float
    """Standard error of that mean."""
    gradient: float
    """Median of the gradient's norm, over all groups that learn."""
    rate: float
    """Mean rate of the head, as a share of the highest of the stage (0–1)."""

    def __str__(self) -> str:
        return f"steps {self.first}–{self.last}"


@dataclass(frozen=True)
class StageCurves:
    """How one stage was configured, and how it went."""

    name: str
    epochs: int
    """Number that the config sets."""
    lr: LearningRate
    rows: Sequence[EpochRow]
    """One for each epoch done; at least one."""
    steps: Sequence[Mapping[str, Any]]
    """The events of its optimizer steps, in order; may be empty where they were lost."""
    head_alone: bool = False
    """Whether the backbone stays as it is."""
    rate_was_found: bool = False
    """Whether `lr` is what `lr: auto` measured."""

    @cached_property
    def parts(self) -> list[Part]:
        """The stage in up to ten parts with equally many steps; none if there are too few steps for two."""
        number = min(_MOST_PARTS, len(self.steps) // _LEAST_STEPS)
        return self._cut([len(self.steps) * i // number for i in range(number + 1)]) if number > 1 else []

    @cached_property
    def thirds(self) -> list[Part]:
        """The stage in three parts whose rates add up to the same; none if one has too few steps."""
        if not self.steps:
            return []
        clock = np.cumsum(self._rates) / self._rates.sum()
        bounds = [0, *(int(np.searchsorted(clock, third)) for third in (1 / 3, 2 / 3)), len(self.steps)]
        enough = all(b - a >= _LEAST_STEPS for a, b in pairwise(bounds))
        return self._cut(bounds) if enough else []

    @property
    def lowest(self) -> EpochRow:
        """The epoch with the lowest validation loss."""
        return min(self.rows, key=lambda row: row.val_loss)

    def _cut(self, bounds: Sequence[int]) -> list[Part]:
        return [self._part(a, b) for a, b in pairwise(bounds)]

    def _part(self, start: int, end: int) -> Part:
        losses = self._losses[start:end]
        return Part(
            first=start + 1,
            last=end,
            loss=float(losses.mean()),
            error=float(losses.std(ddof=1)) / math.sqrt(len(losses)),
            gradient=float(np.median(self._gradients[start:end])),
            rate=float(self._rates[start:end].mean() / self._rates.max()),
        )

    @cached_property
    def _losses(self) -> Numbers:
        return np.array([step["loss"] for step in self.steps])

    @cached_property
    def _gradients(self) -> Numbers:
        return np.array([math.hypot(*step["grad_norm"].values()) for step in self.steps])

    @cached_property
    def _rates(self) -> Numbers:
        return np.array([step["lrs"][-1] for step in self.steps])
