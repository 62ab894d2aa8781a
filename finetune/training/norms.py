"""Norms of a model's tensors in training, computed together and without waiting for the device."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from finetune.machine.divided import is_divided, norms_of_whole, rows_of
from finetune.machine.ranks import ALONE, Ranks

NamedTensor = tuple[str, Tensor]


@dataclass(frozen=True)
class Norms:
    """The L2 norms of some tensors of the model, in its order."""

    names: Sequence[str]
    """Dotted names in the model."""
    values: Sequence[float]

    @property
    def broken(self) -> list[tuple[str, float]]:
        """Names and norms of the tensors whose norm is not finite."""
        return [pair for pair in zip(self.names, self.values, strict=True) if not math.isfinite(pair[1])]


class StageTensors:
    """The parameters and running statistics of a model in one stage, by whether they move."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks = ALONE) -> None:
        """Sort the tensors of a model that is in training mode.

        Of tensors that are divided over the ranks these are the rows that this one holds.
        """
        self._ranks = ranks
        self._divided = [(one, rows_of(one)) for one in model.parameters() if is_divided(one)]
        learning = {
            id(parameter): str(group.get("name", number))
            for number, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
        }
        tensors = list(_tensors(model))
        moving = set(learning) | {id(tensor) for _, tensor, follows in tensors if follows}
        self.learning = [(name, tensor) for name, tensor, _ in tensors if id(tensor) in learning]
        """What the optimizer moves."""
        self.moving = [(name, tensor) for name, tensor, _ in tensors if id(tensor) in moving]
        """What the optimizer or the data move."""
        self.still = [(name, tensor) for name, tensor, _ in tensors if id(tensor) not in moving]
        """What stays as it is."""
        self.group_of = {name: learning[id(tensor)] for name, tensor in self.learning}
        """From a learning parameter to the name, or the number, of its parameter group."""

    def gradients(self) -> list[NamedTensor]:
        """Return the gradients that the learning parameters have now."""
        for whole, rows in self._divided:
            rows.grad = None if whole.grad is None else rows_of(whole.grad)
        return [(name, tensor.grad) for name, tensor in self.learning if tensor.grad is not None]

    def clear_gradients(self) -> None:
        """Forget the gradients of what is divided, which an optimizer of its rows does not know."""
        for whole, _ in self._divided:
            whole.grad = None

    def norms(self, tensors: Sequence[NamedTensor]) -> Tensor:
        """Return the L2 norm of each tensor as float32 (n,), the same on all ranks: that of the whole."""
        return norms_of_whole(tensor_norms(tensors), [tensor for _, tensor in tensors], self._ranks)


def tensor_norms(tensors: Sequence[NamedTensor]) -> Tensor:
    """Return the L2 norm of each tensor as float32 (n,); at least one is needed."""
    with torch.no_grad():
        return torch.stack(list(torch._foreach_norm([tensor for _, tensor in tensors]))).float()


def norms_by_group(norms: Norms, group_of: Mapping[str, str]) -> dict[str, float]:
    """Put the norms of tensors together to one for each group, in the order of the model."""
    groups: dict[str, list[float]] = {}
    for name, norm in zip(norms.names, norms.values, strict=True):
        groups.setdefault(group_of[name], []).append(norm)
    return {group: math.hypot(*values) for group, values in groups.items()}


def clip_factor(norms: Sequence[float], most: float) -> float:
    """Return what `clip_grad_norm_` multiplies gradients of these norms by, 1 if they are short enough."""
    return min(1.0, most / (math.hypot(*norms) + 1e-6))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Return every parameter and running statistic in the model's order, and whether it follows the data."""
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        for key, parameter in module.named_parameters(recurse=False):
            yield f"{dot}{key}", rows_of(parameter), False
        for key, buffer in module.named_buffers(recurse=False):
            if key in ("running_mean", "running_var"):
                yield f"{dot}{key}", buffer, module.training
