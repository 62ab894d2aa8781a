"""The tensors that a training is resumed from: those of the model, of its optimizer and of their average."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import CheckpointError
from finetune.training.averaging import WeightAverage

_MODEL, _OPTIMIZER, _AVERAGE = "model.", "optimizer.", "average."


def training_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, average: WeightAverage | None = None
) -> dict[str, Tensor]:
    """Return all tensors, buffers and step counts included, by a name that `restore_…` finds them by."""
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        assert optimizer is not None
        for key, value in optimizer.state[parameter].items():
            if value is None:  # torch's SGD without momentum
                continue
            if not isinstance(value, Tensor):  # of another package
                raise CheckpointError(
                    f"The optimizer keeps {key} = {value!r}, which is no tensor and cannot be saved.\n"
                    "Its state has to be tensors alone; change the optimizer, or optimizer.name."
                )
            tensors[f"{_OPTIMIZER}{number}.{key}"] = value
    if average is not None:
        tensors |= {_AVERAGE + name: tensor for name, tensor in average.tensors.items()}
    return tensors


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy saved weights and buffers into a model.

    Raises:
        CheckpointError: they are those of another model.
    """
    state = {name.removeprefix(_MODEL): t for name, t in tensors.items() if name.startswith(_MODEL)}
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != expected:
        raise CheckpointError("The checkpoint holds another model than the config describes.")
    model.load_state_dict(state)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Copy a saved state into an optimizer that has just been built.

    Rates, momentum and settings are functions of the config and of the step, and not part of it.

    Raises:
        CheckpointError: it is the state of other parameters.
    """
    state: dict[int, dict[str, Any]] = {}
    parameters = _parameters(optimizer)
    for name, saved in tensors.items():
        if not name.startswith(_OPTIMIZER):
            continue
        number, _, key = name.removeprefix(_OPTIMIZER).partition(".")
        if int(number) >= len(parameters):
            raise CheckpointError("The checkpoint's optimizer holds more parameters than are trained now.")
        state.setdefault(int(number), {})[key] = _as_made(saved, parameters[int(number)])
    # torch would deep-copy the groups that it is given, and read their rates as those of the config.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for position, values in state.items():
        parameter = parameters[position]
        step = optimizer.state[parameter].get("step")
        for key, value in values.items():
            # torch puts its count of steps where a new optimizer has it, and every other number, such as
            # NAdam's product of momenta, on the GPU, from which each step would then wait for it.
            if isinstance(step, Tensor) and value.ndim == 0 < parameter.ndim:
                optimizer.state[parameter][key] = value.to(step.device)


def restore_average(average: WeightAverage, tensors: Mapping[str, Tensor]) -> None:
    """Copy a saved average into one that has just begun; leave it where none was saved.

    Raises:
        CheckpointError: it is that of other tensors.
    """
    saved = {name.removeprefix(_AVERAGE): t for name, t in tensors.items() if name.startswith(_AVERAGE)}
    if not saved:
        return
    expected = {name: tensor.shape for name, tensor in average.tensors.items()}
    if {name: tensor.shape for name, tensor in saved.items()} != expected:
        raise CheckpointError("The checkpoint's average is of other weights than are trained now.")
    average.load(saved)


def _as_made(saved: Tensor, parameter: Tensor) -> Tensor:
    """Lay a tensor out in memory as the optimizer made it: another layout is summed in another order."""
    if saved.shape != parameter.shape:
        if saved.dim():
            raise CheckpointError("The checkpoint's optimizer holds parameters of other shapes.")
        return saved
    return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)


def _parameters(optimizer: torch.optim.Optimizer | None) -> list[Tensor]:
    groups = optimizer.param_groups if optimizer is not None else []
    return [parameter for group in groups for parameter in group["params"]]
