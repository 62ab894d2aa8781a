import pytest
import torch
from torch import nn

from finetune.model import meta
from finetune.model.meta import call_with, meta_tensors, on_meta, probe_tensors


class Shared(nn.Module):
    """A network with one layer in two places, and one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.again = nn.Sequential(self.first, nn.BatchNorm2d(3))
        self.tied = nn.Conv2d(3, 3, 3, padding=1)
        self.tied.weight = self.first.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, images):
        return self.tied(self.again(self.first(images)))


def test_a_call_leaves_a_network_as_it_was_also_where_layers_are_shared():
    network = Shared()
    before = {
        name: (id(tensor), tensor.clone()) for name, tensor in network.state_dict(keep_vars=True).items()
    }
    network.again.eval()
    assert call_with(network, meta_tensors(network), 2, 16).shape == (2, 3, 16, 16)
    after = network.state_dict(keep_vars=True)
    assert {name: id(tensor) for name, tensor in after.items()} == {
        name: one for name, (one, _) in before.items()
    }
    assert all(torch.equal(after[name], tensor) for name, (_, tensor) in before.items())
    assert [network.training, network.again.training, network.first.training] == [True, False, False]


@pytest.mark.parametrize(("quick", "device"), [(0, "meta"), (1e6, "cpu")])
def test_what_the_output_depends_on_gets_a_gradient(quick, device, monkeypatch):
    network = Shared()
    monkeypatch.setattr(meta, "_QUICK", quick)
    tensors = probe_tensors(network, 16, gradients=True)
    call_with(network, tensors, 2, 16).sum().backward()
    used = {name for name, tensor in tensors.items() if tensor.grad is not None}
    assert used == {
        "first.weight",
        "first.bias",
        "again.1.weight",
        "again.1.bias",
        "tied.weight",
        "tied.bias",
    }
    assert tensors["tied.weight"] is tensors["first.weight"]
    assert all(tensor.device.type == device for tensor in tensors.values())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_is_built_on_the_meta_device_without_drawing_its_weights():
    before = torch.random.get_rng_state()
    with on_meta():
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        for draw in (nn.init.normal_, nn.init.trunc_normal_, nn.init.kaiming_uniform_):
            assert draw(network[0].weight) is network[0].weight
        network[0].weight.data.normal_()
    assert [tensor.device.type for tensor in network.state_dict().values()] == ["meta"] * 7
    assert torch.equal(before, torch.random.get_rng_state())
