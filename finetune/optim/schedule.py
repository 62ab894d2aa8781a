"""The one-cycle schedule (Smith, 2018) of rate and momentum: one for stages, trials and races."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class OneCycle:
    """A rate that rises to its peak and falls, and a momentum that does the opposite.

    The values are those of fastai's `fit_one_cycle`, to the last bit.
    """

    pct_start: float = 0.25
    """Fraction of the steps (0–1) in which the rate rises."""
    div: float = 25.0
    """The rate starts at its peak divided by this."""
    div_final: float = 1e5
    """The rate ends at its peak divided by this."""
    moms: tuple[float, float, float] | None = (0.95, 0.85, 0.95)
    """Momentum at the start, at the peak of the rate and at the end; None for an optimizer that has none."""

    def rate(self, where: float, peak: float) -> float:
        """Return the learning rate at a fraction of the steps (0–1), for a peak rate."""
        rates = (peak / self.div, peak, peak / self.div_final)
        return combined_cos(where, rates, pct_start=self.pct_start)

    def rates(self, where: float, peaks: Sequence[float]) -> tuple[float, ...]:
        """Return the learning rate for each of some peak rates; those of many groups are few."""
        rates = {peak: self.rate(where, peak) for peak in set(peaks)}
        return tuple(rates[peak] for peak in peaks)

    def momentum(self, where: float) -> float | None:
        """Return the momentum at a fraction of the steps (0–1); None for an optimizer that has none."""
        return None if self.moms is None else combined_cos(where, self.moms, pct_start=self.pct_start)


def combined_cos(where: float, values: tuple[float, float, float], *, pct_start: float) -> float:
    """Return a value of fastai's `combined_cos`: half a cosine up to a turning point, another one after it.

    Args:
        where: fraction of the steps that are done, 0–1.
        values: at the start, at the turning point, and at the end.
        pct_start: fraction of the steps before the turning point, 0–1.
    """
    # fastai keeps the position, and nothing else, in single precision; so do we, or the last bits of every
    # rate would differ, and with them every weight.
    here, turn = np.float32(where), np.float32(pct_start)
    end = turn + np.float32(1 - pct_start)
    if here < turn:
        return _half_cosine(float(here / turn), values[0], values[1])
    return _half_cosine(float((here - turn) / (end - turn)), values[1], values[2])


def _half_cosine(fraction: float, start: float, end: float) -> float:
    return start + (1 + math.cos(math.pi * (1 - fraction))) * (end - start) / 2


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float], momentum: float | None) -> None:
    """Set the rate of every parameter group, and the momentum of all where it is not None."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if momentum is None:
            continue
        if "betas" in group:  # the adaptive optimizers call it beta1
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum
