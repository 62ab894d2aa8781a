"""How much an image of each class counts where classes of uneven size are balanced.

A class of n images counts as its effective number of images, (1 − βⁿ) / (1 − β) (Cui et al., Class-Balanced
Loss Based on Effective Number of Samples, 2019): the more there are, the less each further one adds. With β
near 1 classes weigh by the inverse of their size; with β = 0 all images weigh the same.
"""

import math
from collections.abc import Sequence

from finetune.text import printable


def class_weights(counts: Sequence[int], beta: float) -> list[float]:
    """Return the weight of an image of each class, such that the mean over all images is 1.

    Args:
        counts: number of images of each class; a class without any weighs 0.
        beta: β, 0 ≤ β < 1.
    """
    inverse = [1 / _effective_number(count, beta) if count else 0.0 for count in counts]
    scale = sum(counts) / sum(count * weight for count, weight in zip(counts, inverse, strict=True))
    return [scale * weight for weight in inverse]


def positive_weights(counts: Sequence[int], images: int, beta: float) -> list[float]:
    """Return how much more an image that has a class counts for it than one that has not.

    It is the effective number of the others over that of the class; 1 where one of the two is empty.

    Args:
        counts: number of images that have each class.
        images: number of all images, of which each may have several classes.
        beta: β, 0 ≤ β < 1.
    """
    return [
        _effective_number(images - count, beta) / _effective_number(count, beta)
        if 0 < count < images
        else 1.0
        for count in counts
    ]


def balance_line(how: str, class_names: Sequence[str], weights: Sequence[float], what: str) -> str:
    """Say how classes are balanced, and between which weights; `what` is that which has them."""
    least, most = (pick(range(len(weights)), key=weights.__getitem__) for pick in (min, max))
    return (
        f"balance {how}: {what} counts from {weights[least]:.3g} ({printable(class_names[least])}) to "
        f"{weights[most]:.3g} ({printable(class_names[most])})"
    )


def _effective_number(count: int, beta: float) -> float:
    # 1 − βⁿ by way of logarithms: for β near 1 the difference of nearly equal numbers would be lost.
    return -math.expm1(count * math.log(beta)) / (1 - beta) if beta else 1.0
