"""From the curve of a range test to a learning rate, or to the reason why there is none.

Every heuristic is a pure function of the raw losses. They are smoothed with a centred kernel: the moving
average that libraries use lags behind the loss by about a decade of rate. Multiplying all losses by a
constant changes no answer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.choices import Heuristic, OwnHeuristic
from finetune.lr_finder.installed import suggest_by_package
from finetune.text import counted

Floats = NDArray[np.float64]

ORDER: tuple[OwnHeuristic, ...] = ("knee", "steepest", "minimum", "slide", "valley")
"""Which heuristic stands in when the one wanted refuses; best first by `benchmarks/regret.py`."""

MIN_POINTS = 10
"""points below which a curve says nothing"""

_LEAST_FALL = 0.03  # of the first level; below it a curve is flat
_NOISE = 3.5  # standard errors that a fall must exceed
_EARLY = 0.15  # of the sweep; a loss that is lowest there has only risen
_CEILING = 2.0  # times the first level; what lies above says "diverged" and no more
_DIVERGED, _EXPLOSION = 1.2, 1.5  # times the first level
_KNEE = 0.985  # of the fall
_SLIDE_GAP = 15  # points, as in fastai
_SLIDE_THRESHOLD = 0.005  # change of slope per point, in parts of the first level


@dataclass(frozen=True)
class Curve:
    """The outcome of a range test: the loss after a step at each rate, from the lowest rate up."""

    lrs: tuple[float, ...]
    """Learning rate of the head, rising by equal ratios."""
    losses: tuple[float, ...]
    """Mean loss of one batch each, in nats."""
    smoothing: float = 3.0
    """Standard deviation of the smoothing kernel, in points."""

    def smoothed(self) -> list[float]:
        """Return the losses under a centred Gaussian kernel, each capped at twice the first level.

        Without the cap the explosion at the end would reach back into the valley before it.
        """
        losses = np.asarray(self.losses)
        if not np.isfinite(losses).all():
            return list(self.losses)
        if len(losses) >= 2:
            losses = np.minimum(losses, _CEILING * first_level(losses))
        return [float(loss) for loss in gaussian_smooth(losses, self.smoothing)]


@dataclass(frozen=True)
class Suggestion:
    """What one heuristic says: a rate, or why it refuses."""

    heuristic: Heuristic
    lr: float | None
    reason: str = ""
    """Why there is no rate; empty where there is one."""


def suggest(curve: Curve, pick: str = "race") -> list[Suggestion]:
    """Return what every heuristic suggests, in the order in which they stand in for each other.

    That of a package is asked where it is the `pick`, and stands first.

    Raises:
        ConfigError: no installed package has a heuristic of that name, or it answers with no rate.
    """
    theirs = () if pick in ("race", *ORDER) else (pick,)
    refusal = judge(curve)
    if refusal is not None:
        return [Suggestion(name, None, refusal) for name in (*theirs, *ORDER)]
    asked = [Suggestion(name, *suggest_by_package(name, curve)) for name in theirs]
    return [*asked, *(_RULES[name](curve) for name in ORDER)]


def judge(curve: Curve) -> str | None:
    """Say why no rate can be read from a curve; None for a curve that falls and shows where."""
    losses = np.asarray(curve.losses)
    if len(losses) < MIN_POINTS:
        return f"too short: {counted(len(losses), 'point')}, at least {MIN_POINTS} are needed"
    if not np.isfinite(losses).all():
        return "not finite: the curve holds a loss that is no number"
    smoothed = np.asarray(curve.smoothed())
    level, lowest = first_level(losses), int(smoothed.argmin())
    if level <= 0:
        return "not positive: a loss of zero cannot fall"
    fall = (level - smoothed[lowest]) / level
    if lowest < _EARLY * len(losses) and smoothed[-1] > level:
        return "rising: the loss is lowest where the rate is"
    if fall < _LEAST_FALL:
        return f"flat: the loss falls by {max(fall, 0):.1%} only"
    if level - smoothed[lowest] < _NOISE * _standard_error(losses, smoothed, lowest, curve.smoothing):
        return f"too noisy: a fall of {fall:.0%} is lost in the noise of the batches"
    if lowest < _EARLY * len(losses):
        return "rising: the loss is lowest where the rate is"
    return None


def judge_against_chance(curve: Curve, chance: float) -> str | None:
    """Say why a curve that falls shows no learning; None where it falls below the loss of guessing.

    A new head begins above that loss, and may fall to it by answering the same for every image.

    Args:
        curve: of a range test.
        chance: what the loss of the training is where every image is guessed.
    """
    lowest = min(curve.smoothed())
    if lowest < chance:
        return None
    return f"no better than random guessing: the loss falls to {lowest:.4f}, and guessing gives {chance:.4f}"


def divergence(curve: Curve) -> float | None:
    """Return the rate from which on the smoothed loss stays a fifth or more above the level it began with.

    Noise alone does not lift it so far. None where the loss does not explode in the end.
    """
    losses = np.asarray(curve.losses)
    if len(losses) < MIN_POINTS or not np.isfinite(losses).all():
        return None
    smoothed = np.asarray(curve.smoothed())
    level = first_level(losses)
    if smoothed[-1] < _EXPLOSION * level:
        return None
    below = np.flatnonzero(smoothed < _DIVERGED * level)
    return float(curve.lrs[int(below[-1]) + 1 if len(below) else 0])


def ceiling(curve: Curve, end: float) -> float | None:
    """Return the rate that is too high: where the smoothed loss diverges, or that of the batch exploded.

    Batches of few images are too noisy for the first; the second ended the range test before the rate `end`.
    None where neither happened.
    """
    diverged, last = divergence(curve), curve.lrs[-1]
    return last if diverged is None and last < 0.99 * end else diverged


def knee(curve: Curve) -> Suggestion:
    """Return the lowest rate at which 98.5% of the whole fall of the smoothed loss is done.

    Beyond it a higher rate gains little and only comes nearer to the explosion. Unlike the minimum itself it
    hardly moves on a flat valley floor, where noise decides which point is the lowest.
    """
    smoothed = np.asarray(curve.smoothed())
    level = first_level(curve.losses)
    done = smoothed <= level - _KNEE * (level - smoothed.min())
    return Suggestion("knee", curve.lrs[int(done.argmax())])


def minimum(curve: Curve) -> Suggestion:
    """Return a tenth of the rate at the lowest smoothed loss; refuse a loss that still falls at the end."""
    lowest = int(np.argmin(curve.smoothed()))
    if lowest >= len(curve.lrs) - 2:
        return Suggestion("minimum", None, "minimum at the edge: the loss still falls; raise lr_finder.end")
    return Suggestion("minimum", curve.lrs[lowest] / 10)


def steepest(curve: Curve) -> Suggestion:
    """Return the rate where the smoothed loss falls fastest per unit of log-rate, before its minimum."""
    smoothed = np.asarray(curve.smoothed())
    slope = np.gradient(smoothed, np.log(np.asarray(curve.lrs)))
    return Suggestion("steepest", curve.lrs[int(slope[: int(smoothed.argmin()) + 1].argmin())])


def valley(curve: Curve) -> Suggestion:
    """Return the rate halfway down the longest valley, as fastai defines it.

    The valley is the longest (not necessarily unbroken) run of ever lower losses; from its length and its
    last point fastai takes one third and half of another, rounded down, so about the middle.
    """
    smoothed = curve.smoothed()
    end, length = longest_descent(smoothed)
    third = length / 3
    return Suggestion("valley", curve.lrs[max(0, end - length + int(third) + int(third / 2))])


def slide(curve: Curve) -> Suggestion:
    """Slide two points, 15 apart, down from the end until the slope is the same at both, as fastai does.

    fastai compares the slopes with an absolute threshold, so that its answer depends on the loss's scale;
    here the losses are measured in parts of the first level.
    """
    slope = np.gradient(np.asarray(curve.smoothed()) / first_level(curve.losses))
    right, left = len(slope) - 1, len(slope) - 1 - _SLIDE_GAP
    if left < 0:
        return Suggestion("slide", None, f"too short: fewer than {_SLIDE_GAP + 1} points")
    found = left
    while left >= 0 and abs(slope[right] - slope[left]) > _SLIDE_THRESHOLD:
        found, right, left = left, right - 1, left - 1
    if found == len(slope) - 1 - _SLIDE_GAP:
        return Suggestion("slide", None, "no slide: the loss does not turn up; raise lr_finder.end")
    return Suggestion("slide", curve.lrs[found])


_RULES: dict[OwnHeuristic, Callable[[Curve], Suggestion]] = {
    "knee": knee,
    "steepest": steepest,
    "minimum": minimum,
    "slide": slide,
    "valley": valley,
}


def choose(suggestions: Sequence[Suggestion], pick: Heuristic) -> Suggestion | None:
    """Return the suggestion of `pick`, or of the next in `ORDER` that has one; None if all refuse."""
    by_name = {suggestion.heuristic: suggestion for suggestion in suggestions}
    in_order = (pick, *(name for name in ORDER if name != pick))
    return next((by_name[name] for name in in_order if by_name[name].lr is not None), None)


def decades(rates: Sequence[float]) -> float:
    """Return how far apart the lowest and the highest of some rates are, in powers of ten."""
    return math.log10(max(rates) / min(rates)) if rates else 0.0


def first_level(losses: Sequence[float] | Floats) -> float:
    """Return the loss before the rate matters: median over the first tenth of a curve, 3 points or more."""
    return float(np.median(np.asarray(losses)[: _level_points(len(losses))]))


def _level_points(points: int) -> int:
    return max(3, points // 10)


def gaussian_smooth(values: Floats, width: float) -> Floats:
    """Smooth values (N,) with a centred Gaussian kernel of standard deviation `width` points.

    At the ends the kernel is cut off and weighted anew.
    """
    if width == 0:
        return values
    distance = np.arange(len(values))[:, None] - np.arange(len(values))[None, :]
    kernel = np.exp(-0.5 * (distance / width) ** 2)
    smoothed: Floats = kernel @ values / kernel.sum(axis=1)
    return smoothed


def longest_descent(values: Sequence[float]) -> tuple[int, int]:
    """Return the end and the length of the longest strictly falling subsequence; of ties the first to end."""
    longest = np.ones(len(values), dtype=np.int64)
    array = np.asarray(values)
    for i in range(1, len(array)):
        higher = longest[:i][array[:i] > array[i]]
        longest[i] = 1 + (higher.max() if len(higher) else 0)
    end = int(longest.argmax())
    return end, int(longest[end])


def _standard_error(losses: Floats, smoothed: Floats, lowest: int, width: float) -> float:
    """Estimate the standard error of a fall from the scatter around the curve before its minimum.

    Both ends of a fall are uncertain: the first level, a median of few losses, and the smoothed minimum.
    """
    before = slice(0, max(lowest, MIN_POINTS))
    scatter = float(np.std(losses[before] - smoothed[before]))
    kernel_points = max(1.0, 2 * math.sqrt(math.pi) * width)  # that a Gaussian averages over
    level_points = _level_points(len(losses)) * 2 / math.pi  # the efficiency of a median
    return scatter * math.sqrt(1 / kernel_points + 1 / level_points)
