"""The tensors that a training is resumed from: those of the model, of its optimizer and of their average.

They are whole, also where the ranks of a training hold some rows each: they are put together one by one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import CheckpointError
from finetune.machine.divided import cut_as, rows_of, which_rows, whole_on_first, whole_shape
from finetune.machine.ranks import ALONE, Ranks
from finetune.training.averaging import WeightAverage

_MODEL, _OPTIMIZER, _AVERAGE = "model.", "optimizer.", "average."


def training_tensors(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    average: WeightAverage | None = None,
    *,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """Return all tensors, buffers and step counts included, by a name that `restore_…` finds them by.

    All ranks have to ask together; those after the first get no tensor of which they hold some rows alone.
    """
    tensors = {_MODEL + name: tensor for name, tensor in _whole_state(model, ranks).items()}
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
            which = which_rows(parameter) if value.shape == parameter.shape else None
            if (whole := whole_on_first(ranks, value, which)) is not None:
                tensors[f"{_OPTIMIZER}{number}.{key}"] = whole
    if average is not None:
        tensors |= {_AVERAGE + name: tensor for name, tensor in _whole(average.tensors, ranks).items()}
    return tensors


def weights_on_cpu(model: nn.Module, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """Return copies of all weights and buffers of a model, whole; all ranks have to ask together.

    Ranks after the first get no tensor of which they hold some rows alone.
    """
    whole = _whole_state(model, ranks).items()
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in whole}


def _whole_state(model: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    return _whole({name: rows_of(tensor) for name, tensor in model.state_dict().items()}, ranks)


def _whole(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Put together what is divided; ranks after the first are left with the rest."""
    whole = ((name, whole_on_first(ranks, own, which_rows(own))) for name, own in tensors.items())
    return {name: tensor for name, tensor in whole if tensor is not None}


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy saved weights and buffers into a model, or the rows of them that this rank holds.

    Raises:
        CheckpointError: they are those of another model.
    """
    state = {name.removeprefix(_MODEL): t for name, t in tensors.items() if name.startswith(_MODEL)}
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != expected:
        raise CheckpointError("The checkpoint holds another model than the config describes.")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            rows = rows_of(tensor)
            rows.copy_(cut_as(rows, state[name]))


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
    expected = {name: whole_shape(tensor) for name, tensor in average.tensors.items()}
    if {name: tensor.shape for name, tensor in saved.items()} != expected:
        raise CheckpointError("The checkpoint's average is of other weights than are trained now.")
    average.load(saved)


def _as_made(saved: Tensor, parameter: Tensor) -> Tensor:
    """Lay a tensor out in memory as the optimizer made it: another layout is summed in another order."""
    if saved.shape != whole_shape(parameter):
        if saved.dim():
            raise CheckpointError("The checkpoint's optimizer holds parameters of other shapes.")
        return saved
    own = torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False)
    return own.copy_(cut_as(parameter, saved))


def _parameters(optimizer: torch.optim.Optimizer | None) -> list[Tensor]:
    groups = optimizer.param_groups if optimizer is not None else []
    return [parameter for group in groups for parameter in group["params"]]
