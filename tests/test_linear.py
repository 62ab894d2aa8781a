"""Linear layers that compute as convolutions."""

import copy

import pytest
import torch
from torch import nn

from finetune.model.linear import RowwiseLinear, hasten_linear_layers


@pytest.fixture(params=["AVX512", "AVX2"])
def processor(request, monkeypatch):
    """Let torch find a processor."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    return request.param


class Own(nn.Linear):
    """A layer with a forward pass of its own."""


def test_linear_layers_are_hastened_where_the_processor_gains_by_it(processor):
    network = nn.Sequential(nn.Linear(3, 4), nn.Sequential(Own(4, 5), nn.Linear(5, 6, bias=False)))
    names = list(network.state_dict())
    hasten_linear_layers(network)
    quick = RowwiseLinear if processor == "AVX512" else nn.Linear
    assert [type(one) for one in (network[0], *network[1])] == [quick, Own, quick]
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 5, 3), (1, 1, 3), (3,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_a_linear_layer(shape, bias):
    torch.manual_seed(0)
    plain = nn.Linear(3, 4, bias=bias).double()
    quick = copy.deepcopy(plain)
    quick.__class__ = RowwiseLinear
    inputs = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    results = []
    for layer in (plain, quick):
        output = layer(inputs)
        found = torch.autograd.grad(output.square().sum(), [inputs, *layer.parameters()])
        results.append((output, *found))
    assert results[0][0].shape == (*shape[:-1], 4)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_rows_that_do_not_lie_one_behind_the_other_are_read_as_they_are():
    plain = nn.Linear(6, 4)
    quick = copy.deepcopy(plain)
    quick.__class__ = RowwiseLinear
    maps = torch.randn(2, 6, 5, 3)
    torch.testing.assert_close(quick(maps.permute(0, 2, 3, 1)), plain(maps.permute(0, 2, 3, 1)))
    torch.testing.assert_close(
        quick(maps[..., :0].permute(0, 2, 3, 1)), plain(maps[..., :0].permute(0, 2, 3, 1))
    )


def test_an_exported_program_holds_a_linear_layer():
    quick = nn.Sequential(nn.Linear(3, 4))
    quick[0].__class__ = RowwiseLinear
    program = torch.export.export(quick, (torch.ones(2, 5, 3),), strict=False)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("linear" in name for name in called)
    assert not any("conv" in name for name in called)
