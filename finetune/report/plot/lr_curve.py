"""The loss curve of a learning-rate range test: what there is to draw, and how it is framed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

X_LABEL, Y_LABEL = "learning rate of the head", "loss of the batch"


@dataclass(frozen=True)
class Marker:
    """A rate to point out."""

    label: str
    """Name of the rate: "valley", "steepest" …; what lies above a "divergence" is shaded."""
    lr: float
    """Learning rate, above 0."""
    picked: bool = False
    """Whether this is the rate to train with."""


@dataclass(frozen=True)
class RacePoint:
    """A rate that a model was trained with briefly, and what it came to."""

    lr: float
    val_loss: float
    """Loss on the validation images afterwards, finite."""
    error: float
    """Standard error of that loss; 0 where it is not known."""


@dataclass(frozen=True)
class CurvePlot:
    """What there is to draw.

    Raises:
        ValueError: there are fewer than 2 points, the lengths differ, or a rate has no place on a log axis.
    """

    title: str
    lrs: Sequence[float]
    """Learning rates (N,), rising, geometric."""
    losses: Sequence[float]
    """Raw losses (N,), as measured, all finite."""
    smoothed: Sequence[float]
    """Smoothed losses (N,)."""
    markers: Sequence[Marker]
    race: Sequence[RacePoint] = ()
    """What became of the rates that were raced against each other; empty without a race."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.lrs) == len(self.losses) == len(self.smoothed):
            counts = (
                f"{len(self.lrs)} rates, {len(self.losses)} losses and {len(self.smoothed)} smoothed ones"
            )
            raise ValueError(f"{counts}: a curve needs as many of each, and at least 2 points")
        if not (0 < self.lrs[0] < self.lrs[-1] and all(marker.lr > 0 for marker in self.markers)):
            raise ValueError("learning rates must be above 0 and rise")


def loss_range(shown: Sequence[float], smoothed: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest loss to draw: the fall in full, of the explosion only its start."""
    start = median_low(smoothed[: max(3, len(smoothed) // 10)])
    low = min(shown)
    high = min(max(shown), start + max(0.5 * (start - low), 0.1 * abs(start)))
    # What moves by less than a twentieth is flat, and has to look it.
    missing = max(0.0, (0.05 * abs(start) or 1.0) - (high - low))
    # Not in the middle, a border between two rows of dots, where rounding would make it jump.
    return low - missing / 3, high + missing * 2 / 3


def above(plot: CurvePlot, high: float) -> str:
    """Say how far the curve goes on above the frame, if it does."""
    return f"the curve goes up to {max(plot.smoothed):.3g}" if max(plot.smoothed) > high else ""


def rate_span(plot: CurvePlot) -> tuple[float, float]:
    """Return the lowest and the highest rate to draw."""
    rates = [plot.lrs[0], plot.lrs[-1], *(marker.lr for marker in plot.markers)]
    return min(rates), max(rates)


def position(lr: float, span: tuple[float, float]) -> float:
    """Place a rate on the log axis, 0–1."""
    return math.log(lr / span[0]) / math.log(span[1] / span[0])


def ticks(span: tuple[float, float]) -> dict[float, str]:
    """Name the powers of ten in the span, or the next best where there are not two of them."""
    decades = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
    for leading in (1,), (1, 2, 5):
        names = [f"{digit}e{decade:+}" for decade in decades for digit in leading]
        # Computed rates end at 0.9999999 of the decade that was meant.
        inside = [name for name in names if -1e-6 <= position(float(name), span) <= 1 + 1e-6]
        if len(inside) > 1:
            return {float(name): name for name in inside}
    return {lr: f"{lr:.3g}" for lr in span}
