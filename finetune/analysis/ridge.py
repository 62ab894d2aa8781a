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


@dataclass(frozen=True)
class Ridge:
    """A fit of targets to features."""

    mean: Tensor
    """of the features (D,), float64"""
    scale: Tensor
    """what centred features are divided by (D,), float64"""
    weight: Tensor
    """(D, C), float64, of features that are centred and scaled"""
    bias: Tensor
    """(C,), float64"""
    penalty: float
    """the one of `PENALTIES` with the least squared error on images that were left out"""
    left_out: Tensor
    """what each image gets from a fit to all others (N, C), float32"""

    def predict(self, features: Tensor) -> Tensor:
        """Return the fitted values (M, C), float32, of features (M, D)."""
        values = (features.double() - self.mean) / self.scale @ self.weight + self.bias
        return values.float()


def fit_ridge(features: Tensor, targets: Tensor, *, penalties: Sequence[float] = PENALTIES) -> Ridge:
    """Fit targets to features, with the penalty that predicts left-out images best.

    Args:
        features: (N, D), of at least two images.
        targets: (N, C), 0 and 1: one 1 in each row, or several.
        penalties: the strengths to choose from, as multiples of the mean variance of the components.
    """
    values, wanted = features.double(), targets.double()
    mean, bias = values.mean(0), wanted.mean(0)
    deviation = values.std(0)
    scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    centred, wanted = (values - mean) / scale, wanted - bias
    left, variances, right = _components(centred)
    n, inner = len(values), left.T @ wanted
    best: tuple[float, float, Tensor, Tensor] | None = None
    for penalty in penalties:
        shrinkage = variances / (variances + penalty * variances.mean())
        leverage = (left**2 @ shrinkage + 1 / n).clamp(max=1 - 1e-6)
        residuals = (wanted - left @ (shrinkage[:, None] * inner)) / (1 - leverage)[:, None]
        error = float((residuals**2).mean())
        if best is None or error < best[0]:
            weight = right @ ((shrinkage / variances.sqrt())[:, None] * inner)
            best = error, penalty, weight, wanted + bias - residuals
    assert best is not None, "no penalties to choose from"
    _, penalty, weight, left_out = best
    return Ridge(mean, scale, weight, bias, penalty, left_out.float())


def _components(centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular vectors (N, K) and (D, K) of a matrix, and its squared singular values (K,).

    They come from the smaller of its two Gram matrices, which is many times faster than its own decomposition
    where one side is much longer than the other.
    """
    n, d = centred.shape
    wide = n < d
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = values > values.max() * 1e-10
    values, vectors = values[kept], vectors[:, kept]
    other = (centred.T @ vectors if wide else centred @ vectors) / values.sqrt()
    return (vectors, values, other) if wide else (other, values, vectors)
