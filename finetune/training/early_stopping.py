"""Early stopping: when a stage ends before its last epoch, as a pure function of its epochs so far.

Nothing is counted from epoch to epoch, so a resumed training stops where it would have stopped anyway.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.choices import Monitor
from finetune.metrics.monitor import prefers_more
from finetune.optim.schedule import combined_cos
from finetune.text import counted


@dataclass(frozen=True)
class EarlyStopping:
    """Which metric has to improve, and for how long it may fail to."""

    metric: Monitor
    patience: int
    """Epochs in a row that may pass without an improvement."""
    min_delta: float
    """An improvement is more than this, in the units of the metric."""
    pct_start: float
    """Fraction of the stage (0–1) after which the rate falls. Epochs that end before it do not count: while
    the rate rises the metric often gets worse, and its value at a low rate is no measure of what follows."""


@dataclass(frozen=True)
class Stop:
    """A stage that ended before its last epoch, and why."""

    stage: str
    epoch: int
    """The last epoch of the stage, from 1."""
    epochs: int
    """How many epochs the stage was configured to have."""
    metric: Monitor
    best: float | None
    """Since the peak of the rate; None if no value was a finite number."""
    best_epoch: int | None
    patience: int
    min_delta: float
    rate_share: float
    """The learning rate at the stop, as a share of its peak (0–1)."""

    def __str__(self) -> str:
        return (
            f"stopped early, after epoch {self.epoch} of {self.epochs}: {self._reason()}\n"
            f"the rate was at {self.rate_share:.0%} of its peak, so the low rates that end a cycle are "
            f"missing; epochs={self.epoch} makes a whole cycle of that length"
        )

    def _reason(self) -> str:
        waited = f"in {counted(self.patience, 'epoch')}"
        if self.best is None:
            return f"{self.metric} was no finite number {waited}"
        direction = "above" if prefers_more(self.metric) else "below"
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"{self.metric} was not {direction} {self.best:.4f} (epoch {self.best_epoch}){by} {waited}"


def find_stop(stage: str, values: Sequence[float], epochs: int, rule: EarlyStopping) -> Stop | None:
    """Decide whether a stage is over after its epochs so far; return why, or None.

    Args:
        stage: name of the stage.
        values: the metric after each epoch of the stage, the last one just done.
        epochs: how many the stage is to have.
        rule: what counts as a gain, and how long to wait for one.
    """
    best, best_epoch, waited = None, None, 0
    for epoch, value in enumerate(values, start=1):
        if epoch < rule.pct_start * epochs:
            continue
        if math.isfinite(value) and (best is None or _gain(value, best, rule.metric) > rule.min_delta):
            best, best_epoch, waited = value, epoch, 0
        else:
            waited += 1
    if waited < rule.patience or len(values) >= epochs:
        return None
    return Stop(
        stage=stage,
        epoch=len(values),
        epochs=epochs,
        metric=rule.metric,
        best=best,
        best_epoch=best_epoch,
        patience=rule.patience,
        min_delta=rule.min_delta,
        rate_share=combined_cos(len(values) / epochs, (0.0, 1.0, 0.0), pct_start=rule.pct_start),
    )


def _gain(value: float, best: float, metric: Monitor) -> float:
    return value - best if prefers_more(metric) else best - value
