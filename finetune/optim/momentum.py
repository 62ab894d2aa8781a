"""Steps along a mean of past gradients: momentum, Nesterov's, and the sign of it."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch.optim.sgd import sgd

from finetune.optim.multi_tensor import Group, MultiTensorOptimizer, Tensors


class Momentum(MultiTensorOptimizer):
    """Step along an exponentially weighted mean of about 1/(1−b) past gradients, which starts from 0.

    m ← b·m + (1−b)·g; w ← w − lr·m: heavy-ball momentum (Polyak, 1964), with a factor 1 − b that keeps the
    size of a step when a schedule moves b.
    """

    memory: ClassVar[tuple[str, ...]] = ("mean",)

    def __init__(self, params: Iterable[Group], *, momentum: float, decoupled_weight_decay: bool) -> None:
        super().__init__(params, {"momentum": momentum}, decoupled_weight_decay=decoupled_weight_decay)

    def _update(self, group: Group, parameters: Tensors, gradients: Tensors, *memory: Tensors) -> None:
        (means,) = memory
        step_along_mean(parameters, gradients, means, lr=group["lr"], momentum=group["momentum"])


class Nesterov(Momentum):
    """Step along the mean of gradients taken at the look-ahead point w − lr·b·m (Nesterov, 1983).

    The weights held here are the look-ahead point itself, where the gradient is at hand. With
    d = b·m + (1−b)·g it moves by −lr·d, and d − b·d_before is free of m:
    d ← b·d + (1−b)·g + b·(1−b)·(g − g_before). From m = 0 both d and g_before start from 0, not from g.
    """

    memory = ("mean", "previous_gradient")

    def _update(self, group: Group, parameters: Tensors, gradients: Tensors, *memory: Tensors) -> None:
        means, previous = memory
        momentum = group["momentum"]
        # What enters the mean is g + b·(g − g_before); made in the place of g_before, it needs no room.
        torch._foreach_lerp_(previous, gradients, 1 + momentum)
        step_along_mean(parameters, previous, means, lr=group["lr"], momentum=momentum)
        torch._foreach_copy_(previous, gradients)


def step_along_mean(
    parameters: Tensors, gradients: Tensors, means: Tensors, *, lr: float, momentum: float
) -> None:
    """Move means of gradients, then weights along them: m ← b·m + (1−b)·g; w ← w − lr·m.

    It is torch's fused SGD with its dampening tied to the momentum and buffers that start from 0; torch's own
    start from the first gradient, undamped.
    """
    # Without momentum torch would leave the means as they are; this one is lost in any sum.
    momentum = max(momentum, torch.finfo(torch.float32).tiny)
    sgd(
        parameters,
        gradients,
        list(means),
        lr=lr,
        momentum=momentum,
        dampening=momentum,
        weight_decay=0.0,
        nesterov=False,
        maximize=False,
        fused=True,
    )


class Lion(MultiTensorOptimizer):
    """Step by the sign of a mean of gradients, the same distance in every coordinate (Chen et al., 2023).

    w ← w − lr·sign(b1·m + (1−b1)·g); m ← b2·m + (1−b2)·g.
    """

    memory = ("mean",)

    def __init__(
        self, params: Iterable[Group], *, betas: tuple[float, float], decoupled_weight_decay: bool
    ) -> None:
        super().__init__(params, {"betas": betas}, decoupled_weight_decay=decoupled_weight_decay)

    def _update(self, group: Group, parameters: Tensors, gradients: Tensors, *memory: Tensors) -> None:
        (means,) = memory
        beta1, beta2 = group["betas"]
        directions = torch._foreach_lerp(means, gradients, 1 - beta1)
        torch._foreach_sign_(directions)
        torch._foreach_add_(parameters, directions, alpha=-group["lr"])
        torch._foreach_lerp_(means, gradients, 1 - beta2)
