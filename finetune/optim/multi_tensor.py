"""What the optimizers written here share: the walk over parameter groups, weight decay, and state."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from finetune.optim.eager import EagerOptimizer

Tensors = list[Tensor]
Group = dict[str, Any]


class MultiTensorOptimizer(EagerOptimizer, ABC):
    """A torch optimizer that updates all tensors of a parameter group at once.

    A subclass names the tensors that it keeps for each parameter, which start from 0, and says how they and
    the weights move. All of its settings are keys of the parameter groups: a schedule may change any of
    them between steps, and they are saved with the state.
    """

    memory: ClassVar[tuple[str, ...]]
    """Names of the tensors kept for each parameter, in the order in which `_update` takes them. `step` is a
    number, any other has the shape of the parameter."""

    def __init__(
        self, params: Iterable[Group], defaults: dict[str, Any], *, decoupled_weight_decay: bool
    ) -> None:
        shared = {"lr": 1e-3, "weight_decay": 0.0, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, {**shared, **defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with the gradients that the parameters hold, and leave these as they are."""
        loss = evaluate(closure)
        for group in self.param_groups:
            parameters = learning(group)
            if parameters:
                gradients = decay_weights(group, parameters)
                self._update(group, parameters, gradients, *self._recall(parameters))
        return loss

    @abstractmethod
    def _update(self, group: Group, parameters: Tensors, gradients: Tensors, *memory: Tensors) -> None:
        """Move the weights and the memory in place, and nothing else."""

    def _recall(self, parameters: Tensors) -> list[Tensors]:
        """Return the memory of some parameters: for each of its names a list of tensors."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {name: _zeros(name, parameter) for name in self.memory}
        return [[self.state[parameter][name] for parameter in parameters] for name in self.memory]


def _zeros(name: str, parameter: Tensor) -> Tensor:
    if name == "step":
        return torch.zeros((), dtype=torch.float32, device=parameter.device)
    return torch.zeros_like(parameter)


def evaluate(closure: Callable[[], float] | None) -> float | None:
    """Evaluate the loss anew, if a step is given a way to do so."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def learning(group: Group) -> Tensors:
    """Return the parameters of a group that have a gradient."""
    return [parameter for parameter in group["params"] if parameter.grad is not None]


def decay_weights(group: Group, parameters: Tensors) -> Tensors:
    """Decay the weights of a group; return the gradients to step with.

    Decoupled decay is w ← (1 − lr·wd)·w before the step (Loshchilov and Hutter, 2019); l2 decay adds wd·w,
    the gradient of wd/2 · Σ w², to the gradients.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not group["weight_decay"]:
        return gradients
    if group["decoupled_weight_decay"]:
        shrink(parameters, lr=group["lr"], weight_decay=group["weight_decay"])
        return gradients
    return list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))


def shrink(parameters: Tensors, *, lr: float, weight_decay: float) -> None:
    """Multiply weights by 1 − lr·wd."""
    torch._foreach_mul_(parameters, 1 - lr * weight_decay)
