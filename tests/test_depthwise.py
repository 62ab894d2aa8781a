"""Depthwise convolutions in float32, and all others as autocast has them."""

import pytest
import torch
from torch import nn

from finetune.model.depthwise import DepthwiseInFloat32


def output_dtype(layer, images):
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        return layer(images).dtype


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(8, 8, 3, groups=8), torch.float32),
        (nn.Conv2d(8, 16, 3, groups=8, padding="same", bias=False), torch.float32),
        (nn.Conv2d(8, 8, 3, groups=2), torch.bfloat16),
        (nn.Conv2d(8, 4, 1), torch.bfloat16),
        (nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)), torch.bfloat16),
    ],
)
def test_only_depthwise_convolutions_leave_bfloat16(layer, expected):
    assert output_dtype(layer, torch.ones(2, 8, 6, 6)) == expected
    assert output_dtype(layer, torch.ones(2, 8, 6, 6, dtype=torch.bfloat16)) == expected


def test_a_convolution_of_one_channel_is_not_depthwise():
    assert output_dtype(nn.Conv2d(1, 8, 3), torch.ones(2, 1, 6, 6)) == torch.bfloat16


def test_values_and_gradients_are_those_of_float32():
    torch.manual_seed(0)
    layer, images = nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 6, 6)
    expected = torch.autograd.grad(layer(images).square().sum(), layer.weight)[0]
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        found = layer(images)
    assert torch.equal(found, layer(images))
    assert torch.equal(torch.autograd.grad(found.square().sum(), layer.weight)[0], expected)


def test_keywords_reach_the_convolution():
    images, weight = torch.ones(1, 4, 5, 5, dtype=torch.bfloat16), torch.ones(4, 1, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        assert torch.conv2d(input=images, weight=weight, groups=4).dtype == torch.float32
