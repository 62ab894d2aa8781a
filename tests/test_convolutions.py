"""Which convolutions of a network that trains on a CPU are not torch's own."""

import pytest
import torch
from torch import nn

from finetune.model.convolutions import QuickConvolutions, gains_by_quick_convolutions
from finetune.model.winograd import WinogradConvolution


@pytest.mark.parametrize(
    ("layer", "in_float32", "in_bfloat16"),
    [
        (nn.Conv2d(8, 8, 5, groups=8), True, True),
        (nn.Conv2d(8, 16, 3, stride=2, groups=8), False, True),
        (nn.Conv2d(8, 8, (5, 3), groups=8), False, False),
        (nn.Conv2d(8, 8, 5, stride=2, groups=4), False, False),
        (nn.Conv2d(1, 8, 5, stride=2), False, False),
        (nn.Conv2d(128, 128, 3), torch.backends.mkl.is_available(), False),
        (nn.Conv2d(64, 128, 3), False, False),
        (nn.Conv2d(128, 128, (3, 1)), False, False),
        (nn.Linear(8, 8), False, False),
    ],
)
def test_networks_without_slow_layers_are_left_alone(layer, in_float32, in_bfloat16):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(layer))
    assert gains_by_quick_convolutions(network, in_bfloat16=False) == in_float32
    assert gains_by_quick_convolutions(network, in_bfloat16=True) == in_bfloat16


def maps(*shape, form=torch.channels_last):
    """Return numbers that learn, as a layer before would hand them on."""
    torch.manual_seed(0)
    return torch.randn(shape).contiguous(memory_format=form).requires_grad_()


def is_winograd(layer, images):
    """Tell whether a layer computes by Winograd's products."""
    with QuickConvolutions():
        return type(layer(images).grad_fn).__name__.startswith(WinogradConvolution.__name__)


def wide(**options):
    return nn.Conv2d(128, 128, 3, **{"padding": 1} | options)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="it gains by MKL's products of matrices")
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (wide(), (4, 128, 16, 16)),
        (wide(padding="same", bias=False), (4, 128, 14, 14)),
        (nn.Conv2d(128, 192, 3, padding=1), (16, 128, 7, 7)),
    ],
)
def test_wide_convolutions_on_every_pixel_multiply_less(layer, shape):
    assert is_winograd(layer, maps(*shape))
    layer.requires_grad_(False)
    assert is_winograd(layer, maps(*shape))
    assert not is_winograd(layer, maps(*shape).detach())  # nothing learns


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (wide(stride=2), (4, 128, 16, 16)),
        (wide(padding=0), (4, 128, 16, 16)),
        (wide(padding=2, dilation=2), (4, 128, 16, 16)),
        (nn.Conv2d(256, 256, 3, padding=1, groups=2), (4, 256, 16, 16)),
        (wide(), (16, 128, 5, 5)),  # a tile would compute more than is saved
        (wide(), (2, 128, 16, 16)),  # the sums of the filters would take longer than the images'
        (wide().double(), (4, 128, 16, 16)),
        (nn.Conv2d(64, 64, 3, padding=1), (4, 64, 16, 16)),
    ],
)
def test_other_convolutions_stay_torchs_own(layer, shape):
    images = maps(*shape).to(layer.weight.dtype)
    assert not is_winograd(layer, images)
    with QuickConvolutions():
        assert torch.equal(layer(images), nn.Conv2d.forward(layer, images))


def test_what_winograd_is_not_for_stays_torchs_own():
    images = maps(4, 128, 16, 16)
    assert not is_winograd(wide(), maps(4, 128, 16, 16, form=torch.contiguous_format))
    assert not is_winograd(wide(), maps(128, 16, 16, form=torch.contiguous_format))  # without a batch
    assert not is_winograd(wide(), maps(0, 128, 16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_winograd(wide(), images)
    with torch.no_grad():
        assert not is_winograd(wide(), images)
