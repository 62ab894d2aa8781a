"""Tensors of which each rank holds some rows: what it holds of one, and how norms and the whole come of it.

torch calls such a tensor a `DTensor`. What optimizers, norms and averages take are the rows themselves, which
are plain tensors in the same memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finetune.machine.ranks import Ranks

_NOTE = "_rows_of_whole"


@dataclass(frozen=True)
class Rows:
    """Which rows of a whole tensor a rank holds."""

    shape: torch.Size
    """Of the whole."""
    first: int
    """Number of the first, where there is one."""


def is_divided(tensor: Tensor) -> bool:
    """Tell whether a tensor is a whole of which each rank holds some rows."""
    return hasattr(tensor, "to_local")  # to ask for the class would import seconds of torch


def has_divided(module: nn.Module) -> bool:
    """Tell whether parameters of a module are divided, so that all ranks have to call it equally often."""
    return any(is_divided(parameter) for parameter in module.parameters())


def undivided(module: nn.Module) -> list[Tensor]:
    """Return the weights and buffers of a module that each rank holds whole."""
    return [tensor for tensor in module.state_dict().values() if not is_divided(tensor)]


def rows_of(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor, in the same memory; a tensor that is not divided as it is.

    It is the same object each time, so that an optimizer's parameters are found again.
    """
    if not is_divided(tensor):
        return tensor
    divided: Any = tensor
    with torch.no_grad():
        rows: Tensor = divided.to_local()
    before: Tensor | None = getattr(tensor, _NOTE, None)
    if before is not None and before.data_ptr() == rows.data_ptr() and before.shape == rows.shape:
        return before
    mesh = divided.device_mesh
    each = -(-tensor.shape[0] // mesh.size())
    rows = rows.detach()
    note_rows(rows, Rows(tensor.shape, min(each * mesh.get_local_rank(), tensor.shape[0])))
    setattr(tensor, _NOTE, rows)
    return rows


def note_rows(rows: Tensor, which: Rows | None) -> None:
    """Note on a plain tensor which rows of a whole it holds, as a copy of others does; None for a whole."""
    if which is not None:
        setattr(rows, _NOTE, which)


def which_rows(tensor: Tensor) -> Rows | None:
    """Return which rows of a whole a plain tensor holds; None if it is no part of another one."""
    which = getattr(tensor, _NOTE, None)
    return which if isinstance(which, Rows) else None


def whole_shape(tensor: Tensor) -> torch.Size:
    """Return the shape of what a tensor is, or holds rows of."""
    which = which_rows(tensor)
    return tensor.shape if which is None else which.shape


def cut_as(own: Tensor, whole: Tensor) -> Tensor:
    """Return of a whole tensor the rows that `own` holds; all of it where that is no part of another one."""
    which = which_rows(own)
    return whole if which is None else whole[which.first : which.first + len(own)]


def whole_on_first(ranks: Ranks, rows: Tensor, which: Rows | None) -> Tensor | None:
    """Return on rank 0 the whole that all ranks hold rows of, on the CPU; None on the others.

    A tensor that is not divided is returned as it is, on every rank.
    """
    return rows if which is None else ranks.rows_to_first(rows.detach(), which.shape[0])


def norms_of_whole(norms: Tensor, tensors: Sequence[Tensor], ranks: Ranks) -> Tensor:
    """Return the L2 norms (…, n) of whole tensors from those of what this rank holds of them.

    Nothing is sent where all n are whole here.
    """
    if ranks.alone:
        return norms
    parts = [which_rows(tensor) is not None for tensor in tensors]
    if not any(parts):
        return norms
    divided = torch.tensor(parts, device=norms.device)
    squares = torch.where(divided, norms.double().square(), 0.0)
    ranks.add_up(squares)
    return torch.where(divided, squares.sqrt().to(norms.dtype), norms)
