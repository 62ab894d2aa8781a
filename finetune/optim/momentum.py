"""Gradient descent along a mean of past gradients: momentum, and Nesterov's."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch.optim.sgd import sgd

from finetune.optim.multi_tensor import MultiTensorOptimizer, Tensors

MOMENTUM = 0.9


class Momentum(MultiTensorOptimizer):
    """Step along an exponentially weighted mean of about 1/(1−b) past gradients, which starts from 0.

    m ← b·m + (1−b)·g; w ← w − lr·m: heavy-ball momentum (Polyak, 1964), with a factor 1 − b that keeps the
    size of a step when a schedule moves b.
    """

    memory: ClassVar[tuple[str, ...]] = ("mean",)

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        momentum: float = MOMENTUM,
        decoupled_weight_decay: bool = True,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum}
        super().__init__(params, defaults, decoupled_weight_decay=decoupled_weight_decay)

    def _update(
        self, group: dict[str, Any], parameters: Tensors, gradients: Tensors, *memory: Tensors
    ) -> None:
        (means,) = memory
        step_along_mean(parameters, gradients, means, lr=group["lr"], momentum=group["momentum"])


class Nesterov(Momentum):
    """Step along the mean of gradients taken at the look-ahead point w − lr·b·m (Nesterov, 1983).

    The weights held here are the look-ahead point itself, where the gradient is at hand. With
    d = b·m + (1−b)·g it moves by −lr·d, and d − b·d_before is free of m:
    d ← b·d + (1−b)·g + b·(1−b)·(g − g_before). From m = 0 both d and g_before start from 0, not from g.
    """

    memory = ("mean", "previous_gradient")

    def _update(
        self, group: dict[str, Any], parameters: Tensors, gradients: Tensors, *memory: Tensors
    ) -> None:
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
