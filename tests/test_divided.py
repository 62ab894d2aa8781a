"""Tensors of which ranks hold some rows each: which rows, the norms, and the whole that comes of them."""

from types import SimpleNamespace

import pytest
import torch
from test_whole_batch import on_ranks
from torch import nn

from finetune.machine.divided import (
    Rows,
    cut_as,
    has_divided,
    norms_of_whole,
    note_rows,
    rows_of,
    undivided,
    which_rows,
    whole_on_first,
    whole_shape,
)
from finetune.machine.ranks import ALONE, Ranks


class Divided(torch.Tensor):
    """Answers as torch's own class does that holds the rows of one rank."""

    rank, size = 0, 1

    def to_local(self):
        each = -(-len(self) // self.size)
        return self.as_subclass(torch.Tensor)[self.rank * each : (self.rank + 1) * each]

    @property
    def device_mesh(self):
        return SimpleNamespace(size=lambda: self.size, get_local_rank=lambda: self.rank)


def divided(whole, rank, size):
    tensor = whole.as_subclass(Divided)
    tensor.rank, tensor.size = rank, size
    return tensor


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_rows_of_all_ranks_are_the_whole(rows, size):
    whole = torch.arange(2.0 * rows).view(rows, 2)
    parts = [rows_of(divided(whole, rank, size)) for rank in range(size)]
    assert torch.equal(torch.cat(parts), whole)
    for part in parts:
        assert whole_shape(part) == whole.shape
        assert torch.equal(cut_as(part, whole), part)


def test_rows_are_the_same_object_each_time_in_the_memory_of_the_whole():
    tensor = divided(torch.zeros(4, 2), 1, 2)
    rows = rows_of(tensor)
    assert rows_of(tensor) is rows
    rows += 1
    assert tensor.sum() == 4
    assert type(rows) is torch.Tensor


def test_what_is_not_divided_stays_as_it_is():
    module = nn.Linear(2, 3)
    assert rows_of(module.weight) is module.weight
    assert which_rows(module.weight) is None
    assert cut_as(module.weight, module.weight) is module.weight
    assert not has_divided(module)
    assert len(undivided(module)) == 2
    assert whole_on_first(ALONE, module.weight, None) is module.weight


def test_norms_are_those_of_whole_tensors():
    generator = torch.Generator().manual_seed(1)
    whole, other, broken = (torch.randn(5, 3, generator=generator) for _ in range(3))
    broken[4, 0] = float("nan")  # which the first rank does not hold

    def on_rank(ranks):
        tensors = [rows_of(divided(whole, ranks.rank, 2)), other, rows_of(divided(broken, ranks.rank, 2))]
        return norms_of_whole(torch.stack(torch._foreach_norm(tensors)), tensors, ranks)

    for found in on_ranks(2, on_rank):
        assert torch.allclose(found[:2], torch.stack([whole.norm(), other.norm()]))
        assert bool(found[2].isnan())


def test_where_all_is_whole_nothing_is_sent():
    norms = torch.ones(1)
    assert norms_of_whole(norms, [torch.ones(1)], Ranks(0, 2)) is norms  # ranks that cannot send anything


def test_a_copy_says_which_rows_it_holds_where_that_is_noted():
    rows = rows_of(divided(torch.zeros(4, 2), 1, 2))
    copy = rows.clone()
    assert which_rows(copy) is None
    note_rows(copy, which_rows(rows))
    assert which_rows(copy) == Rows(torch.Size((4, 2)), 2)
