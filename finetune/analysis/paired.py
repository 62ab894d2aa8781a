"""Whether one model is better than another, by what both answer for the same images."""

import math
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest, norm
from torch import Tensor

LEVEL = 0.95
"""of the interval"""


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same images."""

    images: int
    first_only: int
    """images that the first alone has right"""
    second_only: int
    """images that the second alone has right"""
    p_value: float
    """probability of a difference at least as large between equal models (McNemar's exact test), 0–1"""
    low: float
    """of the interval of the difference"""
    high: float

    @property
    def difference(self) -> float:
        """By how much of the images the second is ahead, −1 to 1."""
        return (self.second_only - self.first_only) / self.images

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "images": self.images,
            "first_only": self.first_only,
            "second_only": self.second_only,
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "p_value": self.p_value,
        }


def compare_paired(first: Tensor, second: Tensor) -> PairedComparison:
    """Compare which images two models have right (N,), bool, each.

    The test is McNemar's (1947) in its exact form: of the images that one model alone has right, half are to
    be expected for each. The interval is Wald's with a half added to each of the four counts (Agresti & Min,
    2005), which holds its level with few images as well.
    """
    images = len(first)
    first_only = int((first & ~second).sum())
    second_only = int((second & ~first).sum())
    different = first_only + second_only
    p_value = float(binomtest(first_only, different).pvalue) if different else 1.0
    total, one, other = images + 2, first_only + 0.5, second_only + 0.5
    difference = (other - one) / total
    variance = max((one + other) - (other - one) ** 2 / total, 0.0)
    reach = float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt(variance) / total
    low, high = max(difference - reach, -1.0), min(difference + reach, 1.0)
    return PairedComparison(images, first_only, second_only, p_value, low, high)
