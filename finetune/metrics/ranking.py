"""Scores of each class by the order of its probabilities: average precision, and the best threshold.

Every class is one problem: the images that have it against those that have not. `probabilities` are (N, C) in
float64, `targets` are (N, C) of 0 and 1.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Classes are looked at in blocks of about this many numbers, so that memory does not grow with their number.
_BLOCK = 4_000_000
_FEW = 32  # thresholds


def average_precisions(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the average precision of each class (C,), as scikit-learn defines it; NaN without a positive."""
    classes = zip(probabilities.T, targets.bool().T, strict=True)
    return torch.stack([average_precision(of_class, has) for of_class, has in classes])


def average_precision(probabilities: Tensor, has: Tensor) -> Tensor:
    """Return the average precision of one class by the probabilities (N,) and which images have it (N,).

    It is the sum of the precisions at each threshold, weighted by the rise in recall there, and so the mean
    of the precisions at the images that have the class. Images of equal probability share a threshold.
    """
    own = probabilities[has].sort().values
    right = len(own) - torch.searchsorted(own, own)
    return (right.double() / _at_or_above(probabilities, own)).mean()


def _at_or_above(values: Tensor, thresholds: Tensor) -> Tensor:
    """Count the values (N,) at or above each threshold (K,): without sorting them where there are few."""
    if len(thresholds) <= _FEW:
        return (values >= thresholds[:, None]).sum(1)
    return len(values) - torch.searchsorted(values.sort().values, thresholds)


def best_thresholds(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the threshold of each class (C,) at which its F1 is the highest; 0.5 without a positive.

    A class is given where its probability is at or above the threshold. Tried are the middles between
    neighbouring probabilities, and between 0 and the lowest; of equally good ones it is the nearest to 0.5.
    """
    parts = [
        _best_thresholds(_Ranking(block, of_block)) for block, of_block in _blocks(probabilities, targets)
    ]
    return torch.cat(parts)


def mean_over_present(values: Tensor, present: Tensor) -> float:
    """Return the mean of `values` (C,) over the classes that are `present` (C,); 0 if none is."""
    return float(values[present].double().mean()) if bool(present.any()) else 0.0


class _Ranking:
    """The images in falling order of their probability, class by class; all tensors are (N, C)."""

    def __init__(self, probabilities: Tensor, targets: Tensor) -> None:
        self.probabilities, order = probabilities.sort(dim=0, descending=True)
        self.hits = targets.gather(0, order)
        self.true_positives = self.hits.cumsum(0)
        last = torch.ones_like(self.hits, dtype=torch.bool)
        last[:-1] = self.probabilities[1:] != self.probabilities[:-1]
        self.last = last
        """whether the next image has another probability, so that a threshold can stand behind this one"""
        self.given = torch.arange(1, len(order) + 1, dtype=torch.float64)[:, None]
        """number of images at or above each (N, 1)"""

    @property
    def positives(self) -> Tensor:
        """Return the number of images that have each class (C,)."""
        return self.true_positives[-1]


def _blocks(probabilities: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, _BLOCK // len(probabilities))
    for start in range(0, probabilities.shape[1], size):
        yield probabilities[:, start : start + size], targets[:, start : start + size].double()


def _best_thresholds(ranking: _Ranking) -> Tensor:
    lower = torch.zeros_like(ranking.probabilities)
    lower[:-1] = ranking.probabilities[1:]
    middle = (ranking.probabilities + lower) / 2
    # Between neighbours among the floats there is no middle: it would be rounded to the lower one.
    middle = torch.where(middle > lower, middle, ranking.probabilities)
    f1 = 2 * ranking.true_positives / (ranking.given + ranking.positives)
    f1 = torch.where(ranking.last, f1, -1.0)
    distance = torch.where(f1 == f1.max(0).values, (middle - 0.5).abs(), torch.inf)
    best = middle.gather(0, distance.argmin(0, keepdim=True))[0]
    return torch.where(ranking.positives > 0, best, 0.5)
