"""The range test (Smith, 2017): the rate grows from batch to batch until the loss explodes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from finetune.lr_finder.heuristics import Curve
from finetune.lr_finder.trial import Trial, no_trace

_RECENT = 5  # losses whose median must be too high, so that one hard batch ends no sweep
_LEVEL = 10  # losses that say where the curve began


@dataclass(frozen=True)
class Range:
    """How a range test goes."""

    start: float = 1e-7
    """First rate of the head."""
    end: float = 10.0
    """Last rate of the head."""
    steps: int = 100
    """Number of rates, evenly spaced by ratio."""
    stop: float = 3.0
    """The sweep ends when the loss is above this many times its first level."""
    smoothing: float = 3.0
    """Standard deviation of the smoothing kernel, in points."""

    def rates(self) -> list[float]:
        """Return the rates from `start` to `end` by equal ratios."""
        ratio = math.log(self.end / self.start)
        return [self.start * math.exp(ratio * i / (self.steps - 1)) for i in range(self.steps)]


def range_test(
    trial: Trial,
    how: Range,
    *,
    repeats: int = 1,
    momentum: float | None,
    tick: Callable[[], None] = lambda: None,
) -> list[Curve]:
    """Sweep the rate from low to high, once for each repeat, always from the same start.

    Leaves no trace, also after an error or Ctrl-C. A sweep ends early when the median of the last five losses
    exceeds `stop` times the first level, or at a loss that is not finite, which the curve leaves out.

    Args:
        trial: what is trained.
        how: range, number of steps, when to stop.
        repeats: number of sweeps, each over other batches.
        momentum: held during the sweep, as one-cycle has it at its peak; None for an optimizer without.
        tick: called after each step.
    """
    epochs = math.ceil((how.steps + 1) / len(trial.train))
    return [_sweep(trial, how, momentum, repeat * epochs, tick) for repeat in range(repeats)]


def mean_curve(curves: list[Curve]) -> Curve:
    """Return the mean of repeated sweeps, as far as the shortest goes."""
    points = min(len(curve.lrs) for curve in curves)
    losses = np.mean([curve.losses[:points] for curve in curves], axis=0)
    return replace(curves[0], lrs=curves[0].lrs[:points], losses=tuple(losses.tolist()))


def _sweep(
    trial: Trial, how: Range, momentum: float | None, first_epoch: int, tick: Callable[[], None]
) -> Curve:
    with no_trace(trial.module):
        rates = how.rates()
        steps = trial.steps(_schedule(rates, momentum), first_epoch=first_epoch)
        losses = []
        for loss in _until_exploded(steps, how.stop):
            losses.append(loss)
            tick()
    # The first loss is from before any step; the loss after the step at a rate belongs to that rate.
    after = losses[1:]
    return Curve(tuple(rates[: len(after)]), tuple(after), how.smoothing)


def _schedule(rates: list[float], momentum: float | None) -> Iterator[tuple[float, float | None]]:
    """Return each rate in turn, and the last one once more: the loss after it is still to be measured."""
    yield from ((rate, momentum) for rate in [*rates, rates[-1]])


def _until_exploded(losses: Iterator[float], stop: float) -> Iterator[float]:
    seen: list[float] = []
    for loss in losses:
        if not math.isfinite(loss):
            return
        yield loss
        seen.append(loss)
        if len(seen) >= _LEVEL + _RECENT:
            level = float(np.median(seen[:_LEVEL]))
            if float(np.median(seen[-_RECENT:])) > stop * level:
                return
