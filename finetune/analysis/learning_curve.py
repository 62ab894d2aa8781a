"""What more images would bring: accuracy by number of training images, and a power law that goes on.

Ridge regression is fitted to parts of the training images, of growing size and drawn several times each, and
judged on the validation images. The error is modelled as a·n⁻ᵇ + c with b ≥ 0 and c between nothing and the
least error: a power law (Hestness et al., 2017) above an error that no number of images removes. A few points
do not tell c, so that the interval is made of many laws: each is fitted to points whose images and draws are
resampled, with a c of its own, and counts by how well it meets the points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.analysis.ridge import solve_ridge, target_rows

LEVEL = 0.8
"""the share of the truth that intervals are to hold"""
LEAST_A_CLASS = 2
"""training images of a class in the smallest part, on average"""
LEAST_SIZES = 4
"""sizes of parts, below which nothing is said of more images"""
LEAST_JUDGED = 10
"""validation images, below which nothing is said of a class"""

_DRAWS = 10
_RESAMPLES = 1000
_STEEPEST = 1.5  # learning curves are flatter; a few noisy points may not be
_ERROR = 1e-4  # so that logarithms are finite where nothing is wrong

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """Fits to parts of one size."""

    images: int
    right: NDArray[np.bool_]
    """(R, V) whether each of R fits was right on each of V validation images"""


@dataclass(frozen=True)
class Estimate:
    """An accuracy, 0–1, and the interval that holds it in `LEVEL` of the cases."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The accuracy of what was fitted, and of what would be with more images."""

    images: tuple[int, ...]
    points: tuple[Estimate, ...]
    more: tuple[int, ...]
    """numbers of images that there are not yet; empty where there is too little to tell"""
    forecast: tuple[Estimate, ...]


def part_sizes(counts: Sequence[int]) -> list[int]:
    """Return the sizes of the parts of training images, from a few of each class to all, by doubling.

    Args:
        counts: training images of each class.
    """
    whole, least = sum(counts), LEAST_A_CLASS * len(counts)
    sizes = [whole]
    while sizes[0] // 2 >= least:
        sizes.insert(0, sizes[0] // 2)
    return sizes


def draw_part(targets: Tensor, size: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw images so that each class keeps its share, and has at least one."""
    classes = [np.flatnonzero(targets.numpy() == target) for target in np.unique(targets.numpy())]
    share = size / len(targets)
    wanted = [max(1.0, share * len(members)) for members in classes]
    kept = [int(number) + bool(random.random() < number % 1) for number in wanted]
    chosen = [random.permutation(members)[:number] for members, number in zip(classes, kept, strict=True)]
    return np.concatenate(chosen)


def measure(
    train: tuple[Tensor, Tensor],
    judged: tuple[Tensor, Tensor],
    classes: int,
    advance: Callable[[int], object] = bool,
) -> list[Size]:
    """Fit ridge regression to parts of the training images, and judge it on others.

    Args:
        train: features (N, D) and classes (N,).
        judged: features (V, D) and classes (V,).
        classes: their number.
        advance: called with 1 for each size that is done.
    """
    (features, targets), (shown, wanted) = train, judged
    random = np.random.default_rng(0)
    sizes = []
    for size in part_sizes(torch.bincount(targets, minlength=classes).tolist()):
        draws = 1 if size == len(targets) else _DRAWS
        right = []
        for _ in range(draws):
            part = np.arange(size) if draws == 1 else draw_part(targets, size, random)
            fit = solve_ridge(features[part], target_rows(targets[part], classes))
            right.append((fit.predict(shown).argmax(1) == wanted).numpy())
        sizes.append(Size(size, np.stack(right)))
        advance(1)
    return sizes


def fit_curve(sizes: Sequence[Size], more: Sequence[int]) -> Curve:
    """Return the accuracy of each size with its interval, and the one that is expected of more images."""
    images = tuple(size.images for size in sizes)
    errors = _resampled(sizes)
    points = tuple(
        _measured(float(size.right.mean()), 1 - errors[:, number]) for number, size in enumerate(sizes)
    )
    if len(sizes) < LEAST_SIZES or sizes[0].right.shape[1] < LEAST_JUDGED:
        return Curve(images, points, (), ())
    ahead, weights = _laws(np.array(images, float), errors, np.array(more, float))
    forecast = []
    for accuracies in (1 - ahead).T:
        low, middle, high = _quantiles(accuracies, weights, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2))
        forecast.append(Estimate(middle, low, high))
    return Curve(images, points, tuple(more), tuple(forecast))


def _resampled(sizes: Sequence[Size]) -> Array:
    """Return the error of each size (B, K) with validation images and draws resampled B times."""
    random = np.random.default_rng(0)
    judged = sizes[0].right.shape[1]
    weights = random.multinomial(judged, np.full(judged, 1 / judged), _RESAMPLES) / judged
    columns = []
    for size in sizes:
        draws = len(size.right)
        shares = random.multinomial(draws, np.full(draws, 1 / draws), _RESAMPLES) / draws
        columns.append(1 - ((shares @ size.right) * weights).sum(axis=1))
    if len(sizes) > 1 and len(sizes[-1].right) == 1:
        # All images are one draw, too: what others would give varies less than that of half as many.
        spread = sizes[-2].right.mean(axis=1).std() / 2**0.5
        columns[-1] = np.clip(columns[-1] + spread * random.standard_normal(_RESAMPLES), 0.0, 1.0)
    return np.stack(columns, axis=1)


def _laws(images: Array, errors: Array, more: Array) -> tuple[Array, Array]:
    """Fit a law to each resampling; return what each expects of more images (B, M), and its weight (B,).

    The floor c is drawn between nothing and the least error; the rest is a line through logarithms, whose
    points count by the images that they stand for: the law has to meet the large parts.
    """
    random = np.random.default_rng(1)
    floor = random.random((len(errors), 1)) * errors.min(axis=1, keepdims=True)
    rest = np.log(np.maximum(errors - floor, _ERROR))
    x = np.log(images)
    importance = (images / images.max()) ** 0.5
    importance /= importance.sum()
    middle_x, middle_y = float(importance @ x), rest @ importance
    away = x - middle_x
    slope = ((rest - middle_y[:, None]) * importance) @ away / float(importance @ away**2)
    slope = np.clip(slope, -_STEEPEST, 0.0)
    fitted = floor + np.exp(middle_y[:, None] + slope[:, None] * away)
    spread = errors.std(axis=0) + 0.005
    misfit = (((fitted - errors) / spread) ** 2) @ importance * len(images)
    weights = np.exp(-0.5 * (misfit - misfit.min()))
    # A law that misses the last point is moved to it: the step from there is what it knows.
    missed = errors[:, -1:] - fitted[:, -1:]
    ahead = floor + np.exp(middle_y[:, None] + slope[:, None] * (np.log(more) - middle_x)) + missed
    return np.clip(ahead, 0.0, 1.0), weights / weights.sum()


def _measured(accuracy: float, resampled: Array) -> Estimate:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(accuracy, min(float(low), accuracy), max(float(high), accuracy))


def _quantiles(values: Array, weights: Array, at: Sequence[float]) -> list[float]:
    """Return weighted quantiles."""
    order = np.argsort(values)
    reached, ordered = np.cumsum(weights[order]), values[order]
    return [float(ordered[min(int(np.searchsorted(reached, q)), len(values) - 1)]) for q in at]
