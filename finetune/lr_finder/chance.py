"""What guessing brings: the loss of a model that gives every image the same answer.

A rate at which training ends no better than that has taught nothing, however far the loss has fallen: a new
head begins above it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST = 1e-6  # share of a class that training does not have, so that the loss stays finite


def expected_shares(
    counts: Sequence[int],
    images: int,
    *,
    multilabel: bool,
    weights: Sequence[float] | None,
    label_smoothing: float,
    focal: bool,
) -> list[float]:
    """Return the probability of each class that a model is led to which knows nothing of an image.

    That is the share of the class in the training images, as balancing and smoothing change it. The focal
    loss leads to less certain answers, for which there is no formula: all classes count as equally likely.

    Args:
        counts: number of training images that have each class.
        images: number of all training images.
        multilabel: whether an image may have several classes, so that each has a share of its own.
        weights: how much an image of each class counts, or one that has it; None where all count the same.
        label_smoothing: share of the targets that is spread evenly.
        focal: whether the loss is focal.
    """
    even, certain = 0.5 if multilabel else 1 / len(counts), 1 - label_smoothing
    if focal:
        return [even] * len(counts)
    weights = [1.0] * len(counts) if weights is None else weights
    if multilabel:  # the weight multiplies what smoothing leaves of the target
        targets = [certain * count / images + label_smoothing * even for count in counts]
        pairs = zip(targets, weights, strict=True)
        return [target * weight / (target * weight + 1 - target) for target, weight in pairs]
    weighed = [count * weight for count, weight in zip(counts, weights, strict=True)]
    return [certain * have / sum(weighed) + label_smoothing * even for have in weighed]


def guessing_logits(shares: Sequence[float], *, multilabel: bool) -> Tensor:
    """Return the logits (C,), float32, of a model that gives every image the same probabilities."""
    p = torch.tensor(shares, dtype=torch.float64).clamp(_LEAST, 1 - _LEAST)
    return (p.logit() if multilabel else p.log()).float()
