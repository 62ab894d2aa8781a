"""What the optimizers written here share: the walk over parameter groups, weight decay, and state."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

Tensors = list[Tensor]


class MultiTensorOptimizer(torch.optim.Optimizer, ABC):
    """A torch optimizer that updates all tensors of a parameter group at once.

    A subclass names the tensors that it keeps for each parameter, which start from 0, and says how they and
    the weights move. All of its settings are keys of the parameter groups: a schedule may change any of
    them between steps, and they are saved with the state.
    """

    memory: ClassVar[tuple[str, ...]]
    """Names of the tensors kept for each parameter, in the order in which `_update` takes them."""

    def __init__(
        self, params: Iterable[dict[str, Any]], defaults: dict[str, Any], *, decoupled_weight_decay: bool
    ) -> None:
        shared = {"weight_decay": 0.0, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, {**defaults, **shared})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with the gradients that the parameters hold, and leave these as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                gradients = decay_weights(group, parameters, [parameter.grad for parameter in parameters])
                self._update(group, parameters, gradients, *self._recall(parameters))
        return loss

    @abstractmethod
    def _update(
        self, group: dict[str, Any], parameters: Tensors, gradients: Tensors, *memory: Tensors
    ) -> None:
        """Move the weights and the memory in place, and nothing else."""

    def _recall(self, parameters: Tensors) -> list[Tensors]:
        """Give the memory of some parameters: for each of its names a list of tensors."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {name: torch.zeros_like(parameter) for name in self.memory}
        return [[self.state[parameter][name] for parameter in parameters] for name in self.memory]


def decay_weights(group: dict[str, Any], parameters: Tensors, gradients: Tensors) -> Tensors:
    """Decay the weights of a group; give the gradients to go on with.

    Decoupled decay is w ← (1 − lr·wd)·w before the step (Loshchilov and Hutter, 2019); l2 decay adds wd·w,
    the gradient of wd/2 · Σ w², to the gradients.
    """
    lr, weight_decay = group["lr"], group["weight_decay"]
    if not weight_decay:
        return gradients
    if group["decoupled_weight_decay"]:
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        return gradients
    return list(torch._foreach_add(gradients, parameters, alpha=weight_decay))
