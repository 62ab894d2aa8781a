"""Whether a trial ends early: by its epochs beside those of others, and never by what chance explains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from finetune.choices import PrunerName
from finetune.metrics.score import Scores
from finetune.metrics.single_label import SingleLabelScores

ERRORS = 2.0
"""standard errors of a difference that a trial must be behind by, where nothing else is said"""
FACTOR = 3
"""of successive halving: one in so many goes on"""


@dataclass(frozen=True)
class PruningRule:
    """When a trial ends early."""

    name: PrunerName
    after: int
    """epochs that every trial has"""
    least: int
    """others that must have come as far"""
    margin: float | None
    """in standard errors, or nats of a loss; None for the default"""
    higher_is_better: bool = True


@dataclass(frozen=True)
class Decision:
    """What was found of a trial that is behind others, with the numbers."""

    rule: PrunerName
    epoch: int
    """over all stages, from 1"""
    value: float
    """the trial's best so far"""
    bar: float
    """what it is compared with: the median of others, or the worst that goes on"""
    margin: float
    """by how much it may be behind"""
    others: Mapping[int, float]
    """the best so far of others at this epoch, by trial"""
    pruned: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as pruning.jsonl holds it."""
        return asdict(self) | {"others": {str(number): value for number, value in self.others.items()}}

    def __str__(self) -> str:
        what = "the median of" if self.rule == "median" else "the best third among"
        return (
            f"{self.value:.4f} after epoch {self.epoch}, {what} {len(self.others)} others {self.bar:.4f}, "
            f"margin {self.margin:.4f}"
        )


def decide(
    rule: PruningRule, epoch: int, values: Sequence[float], others: Mapping[int, float], images: float
) -> Decision | None:
    """Compare a trial with others at the same epoch; return None where it is not behind them.

    Args:
        rule: when to end it.
        epoch: how many it has had, over all stages.
        values: what is monitored, after each epoch it has had.
        others: the best so far of each other trial that has had as many, by its number.
        images: how many validation images the score counts, for its standard error.
    """
    sign = 1.0 if rule.higher_is_better else -1.0
    finite = [sign * value for value in values if math.isfinite(value)]
    if rule.name == "none" or not finite or epoch < rule.after or len(others) < rule.least:
        return None
    best, theirs = max(finite), [sign * value for value in others.values()]
    if rule.name == "halving":
        if not _is_rung(epoch, rule.after):
            return None
        ranked = sorted([best, *theirs], reverse=True)
        bar = ranked[max(1, len(ranked) // FACTOR) - 1]
    else:
        bar = median(theirs)
    if best >= bar:
        return None
    margin = _margin(rule, abs(best), abs(bar), images)
    pruned = bar - best > margin
    return Decision(rule.name, epoch, sign * best, sign * bar, margin, dict(others), pruned)


def _margin(rule: PruningRule, one: float, other: float, images: float) -> float:
    """Return the difference that chance explains, of two shares (0–1) of so many images.

    The answers are taken for independent. Those of two models on the same images are not, and differ by less,
    so that a trial goes on rather than ends.
    """
    if not rule.higher_is_better:
        return rule.margin or 0.0
    errors = ERRORS if rule.margin is None else rule.margin
    return errors * math.sqrt((one * (1 - one) + other * (1 - other)) / images)


def _is_rung(epoch: int, first: int) -> bool:
    while first < epoch:
        first *= FACTOR
    return first == epoch


def counted_images(scores: Scores, monitor: str) -> float:
    """Return how many images decide the standard error of a score.

    For accuracy all of them. For a mean over classes, of n images each, C² / Σ 1/n: as many as if all classes
    had the same number, and fewer where some are rare.
    """
    if monitor == "val_accuracy" or not isinstance(scores, SingleLabelScores):
        return float(scores.images)
    counts = [row.support for row in scores.per_class if row.support]
    return len(counts) ** 2 / sum(1 / count for count in counts)
