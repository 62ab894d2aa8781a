"""How far probabilities can be believed: one temperature for all logits, and what it makes better.

A network that is trained to its end is surer than it is right. Dividing its logits by one number, the
temperature, chosen for the lowest loss on images that were not trained on, repairs most of that and changes
no answer (Guo et al., 2017, "On Calibration of Modern Neural Networks").
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.seed import derive, permutation

Losses = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, C) and targets (N, …) to their losses (N,), in nats."""

_MOST_FITTED, _LEAST_FITTED = 10_000, 1_000  # images; one number needs no more
_MOST_LOGITS = 10_000_000  # above the least of images, so that ten thousand classes do not take minutes
_SPREAD = 0.5  # standard deviation of the logarithm of temperatures, before anything is seen
_FOLDS = 10
_BINS = 15
_RANGE = 0.05, 20.0  # of temperatures


def fit_temperature(logits: Tensor, targets: Tensor, losses: Losses) -> float:
    """Return the temperature by which logits (N, C) have to be divided for the lowest loss.

    A few images that are all answered right would ask for certainty. So the logarithm of the temperature has
    a normal distribution before anything is seen, which counts for little where there are many images.
    """
    from scipy.optimize import minimize_scalar  # a third of a second of import

    most = max(_LEAST_FITTED, min(_MOST_FITTED, _MOST_LOGITS // logits.shape[1]))
    spread = torch.linspace(0, len(logits) - 1, min(len(logits), most)).long()
    logits, targets = logits[spread].double(), targets[spread]
    found = minimize_scalar(
        lambda power: float(losses(logits / math.exp(power), targets).sum()) + power**2 / (2 * _SPREAD**2),
        bounds=tuple(map(math.log, _RANGE)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(f"{math.exp(found.x):.4g}")


def cross_calibrated(logits: Tensor, targets: Tensor, losses: Losses) -> Tensor:
    """Return logits (N, C) divided by temperatures in whose choice they had no part."""
    scaled, n = logits.double().clone(), len(logits)
    order = torch.tensor(permutation(n, derive(0, "calibration", n)))
    for own in order.chunk(min(_FOLDS, n)) if n > 1 else ():
        others = torch.ones(n, dtype=torch.bool)
        others[own] = False
        scaled[own] /= fit_temperature(logits[others], targets[others], losses)
    return scaled


class Bin(NamedTuple):
    """Answers of like confidence."""

    confidence: float
    """Their mean, 0–1."""
    right: float
    """Share of them that is right, 0–1."""
    answers: int


def reliability(confidence: Tensor, right: Tensor, *, bins: int = _BINS) -> list[Bin]:
    """Compare confidence (M,), 0–1, with what is right (M,), in bins of equal width that are not empty."""
    places = (confidence.double() * bins).long().clamp(0, bins - 1)
    found = []
    for place in torch.unique(places, sorted=True).tolist():
        own = places == place
        mean, share = confidence[own].double().mean(), right[own].double().mean()
        found.append(Bin(float(mean), float(share), int(own.sum())))
    return found


def calibration_error(bins: list[Bin]) -> float:
    """Return the mean distance of confidence from how often it is right, 0–1 (expected calibration error)."""
    total = sum(one.answers for one in bins)
    return sum(one.answers * abs(one.confidence - one.right) for one in bins) / total


class Coverage(NamedTuple):
    """What comes of answering only where a model is sure enough."""

    confidence: float
    """The lowest confidence that is answered, 0–1."""
    coverage: float
    """Share of the images that are answered, 0–1."""
    right: float
    """Share of these that are answered right, 0–1."""


@dataclass(frozen=True)
class Calibration:
    """What one temperature does to the probabilities of a model on validation images."""

    temperature: float
    error: tuple[float, float]
    """Expected calibration error before and after, 0–1."""
    loss: tuple[float, float]
    """Mean loss before and after, in nats; both after are of images that had no part in their temperature."""
    coverage: tuple[Coverage, ...] = ()
    """How often the surest answers are right after, by the probabilities of such images."""

    def to_dict(self) -> dict[str, Any]:
        """Return what report.json holds of it."""
        (error, error_after), (loss, loss_after) = self.error, self.loss
        return {
            "temperature": self.temperature,
            "expected_calibration_error": {"before": error, "after": error_after},
            "loss": {"before": loss, "after": loss_after},
            "coverage": [one._asdict() for one in self.coverage],
        }

    def __str__(self) -> str:
        (error, error_after), (loss, loss_after) = self.error, self.loss
        if self.temperature == 1:
            return f"probabilities are off by {error:.1%} on average; no temperature makes that better"
        return (
            f"temperature {self.temperature:.3g}: calibration error {error:.1%} → {error_after:.1%}, "
            f"loss {loss:.4f} → {loss_after:.4f} (cross-validated)"
        )


def risk_against_coverage(confidence: Tensor, right: Tensor, *, steps: int = 10) -> list[Coverage]:
    """Return how often the surest tenth, two tenths … and all of the answers (M,) are right."""
    order = confidence.sort(descending=True, stable=True)
    sorted_right = right[order.indices].double()
    found = []
    for step in range(1, steps + 1):
        kept = max(round(len(confidence) * step / steps), 1)
        lowest, share = float(order.values[kept - 1]), float(sorted_right[:kept].mean())
        found.append(Coverage(lowest, kept / len(confidence), share))
    return found
