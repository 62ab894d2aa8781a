"""Ridge regression from features to classes, judged on every image by a fit without it.

The classifier that takes no training: targets of 0 and 1 are fitted by least squares with a penalty, and the
class with the highest value is the answer. What each image would get from a fit to all the others follows
from the one fit to all (Allen, 1974): the residual of image i is divided by 1 − hᵢᵢ, where h is the matrix
that maps targets to fitted values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = tuple(10.0 ** (half / 2) for half in range(-4, 5))
"""What is tried, as multiples of the mean variance of the principal components."""


USUAL_PENALTY = 1.0
"""What is taken where there is no time to choose: the best of `PENALTIES` on photographs, or next to it."""


@dataclass(frozen=True)
class RidgeFit:
    """A fit of targets to features."""

    mean: Tensor
    """of the features (D,), float64"""
    scale: Tensor
    """what centred features are divided by (D,), float64"""
    weight: Tensor
    """(D, C), float64, of features that are centred and scaled"""
    bias: Tensor
    """(C,), float64"""

    def predict(self, features: Tensor) -> Tensor:
        """Return the fitted values (M, C), float32, of features (M, D)."""
        values = (features.double() - self.mean) / self.scale @ self.weight + self.bias
        return values.float()


@dataclass(frozen=True)
class Ridge(RidgeFit):
    """A fit whose penalty was chosen by what it gives images that had no part in it."""

    penalty: float
    """the one of `PENALTIES` with the least squared error on images that were left out"""
    left_out: Tensor
    """what each image gets from a fit to all others (N, C), float32"""


def target_rows(targets: Tensor, classes: int) -> Tensor:
    """Return targets as 0 and 1 (N, C), float32: classes (N,), or what is of this kind already."""
    if targets.ndim == 2:
        return targets.float()
    return torch.nn.functional.one_hot(targets, classes).float()


def solve_ridge(features: Tensor, targets: Tensor, *, penalty: float = USUAL_PENALTY) -> RidgeFit:
    """Fit targets (N, C) to features (N, D) with one penalty, and leave nothing out: many times faster."""
    mean, scale, centred = _standardised(features)
    bias = targets.double().mean(0)
    n, d = centred.shape
    wide = n < d
    gram = centred @ centred.T if wide else centred.T @ centred
    gram.diagonal().add_(penalty * _mean_variance(centred))
    wanted = targets.double() - bias
    factor = torch.linalg.cholesky(gram)
    if wide:
        weight = centred.T @ torch.cholesky_solve(wanted, factor)
    else:
        weight = torch.cholesky_solve(centred.T @ wanted, factor)
    return RidgeFit(mean, scale, weight, bias)


def fit_ridge(features: Tensor, targets: Tensor, *, penalties: Sequence[float] = PENALTIES) -> Ridge:
    """Fit targets to features, with the penalty that predicts left-out images best.

    Args:
        features: (N, D), of at least two images.
        targets: (N, C), 0 and 1: one 1 in each row, or several.
        penalties: the strengths to choose from, as multiples of the mean variance of the components.
    """
    mean, scale, centred = _standardised(features)
    bias = targets.double().mean(0)
    wanted = targets.double() - bias
    left, variances, right = _components(centred)
    n, inner, unit = len(centred), left.T @ wanted, _mean_variance(centred)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for penalty in penalties:
        shrinkage = variances / (variances + penalty * unit)
        leverage = (left**2 @ shrinkage + 1 / n).clamp(max=1 - 1e-6)
        residuals = (wanted - left @ (shrinkage[:, None] * inner)) / (1 - leverage)[:, None]
        error = float((residuals**2).mean())
        if best is None or error < best[0]:
            weight = right @ ((shrinkage / variances.sqrt())[:, None] * inner)
            best = error, penalty, weight, wanted + bias - residuals
    assert best is not None, "no penalties to choose from"
    _, penalty, weight, left_out = best
    return Ridge(mean, scale, weight, bias, penalty, left_out.float())


def _standardised(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of features (D,), what they are divided by (D,), and the result (N, D), in float64."""
    values = features.double()
    mean, deviation = values.mean(0), values.std(0)
    scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    return mean, scale, (values - mean) / scale


def _mean_variance(centred: Tensor) -> float:
    """Return the mean of the squared singular values; 1 where all are 0, and any penalty will do."""
    n, d = centred.shape
    return float((centred**2).sum()) / min(n - 1, d) or 1.0


def _components(centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular vectors (N, K) and (D, K) of a matrix, and its squared singular values (K,).

    They come from the smaller of its two Gram matrices, which is many times faster than its own decomposition
    where one side is much longer than the other.
    """
    n, d = centred.shape
    wide = n < d
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = values > max(float(values.max()) * 1e-10, 1e-12)
    values, vectors = values[kept], vectors[:, kept]
    other = (centred.T @ vectors if wide else centred @ vectors) / values.sqrt()
    return (vectors, values, other) if wide else (other, values, vectors)
