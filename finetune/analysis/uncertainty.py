"""How far a score would be off with other images of the same kind, and the difference of two scores.

Every score is given as one number for each image, or for each group of images, whose mean it is. The spread
of these numbers is the uncertainty of the score, and the spread of the differences that of a difference: two
models are judged on the same images, most of which are easy or hard for both.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from finetune.seed import derive, permutation

_GROUPS = 100
REACH = 1.959964
"""standard errors to either side that hold 95%"""


def pseudo_values(score: Callable[[Tensor], float], images: int) -> Tensor:
    """Return the jackknife's pseudo-values of a score (G,), float64 (Tukey, 1958).

    They stand for scores that are no mean over images, such as mean average precision. The images are dealt
    at random to at most 100 groups, always the same for a number of images, each of which is left out once.

    Args:
        score: from positions of images (M,) to their score.
        images: how many there are, at least 2.
    """
    order = torch.tensor(permutation(images, derive(0, "jackknife", images)))
    groups = min(images, _GROUPS)
    whole = score(torch.arange(images))
    left_out = [
        score(torch.cat([order[:start], order[end:]]).sort().values)
        for start, end in (
            (number * images // groups, (number + 1) * images // groups) for number in range(groups)
        )
    ]
    return groups * whole - (groups - 1) * torch.tensor(left_out, dtype=torch.float64)


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values (N,); NaN of fewer than two."""
    return float(values.double().std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def is_beyond_chance(difference: float, error: float) -> bool:
    """Tell whether a difference is more than two of its standard errors; never where that is not known."""
    return abs(difference) > 2 * error


def share_interval(right: int, of: int) -> tuple[float, float]:
    """Return the 95% interval of a share, 0–1, by Wilson's score (1927): it holds with few images as well."""
    share, square = right / of, REACH**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    reach = REACH * math.sqrt(share * (1 - share) / of + square / (4 * of**2)) / (1 + square / of)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)
