"""Depthwise convolutions: the values and gradients of torch's own, in the precision that is quick."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from finetune.model import depthwise
from finetune.model.convolutions import QuickConvolutions
from finetune.model.depthwise import filter_gradient


def output_dtype(layer, images):
    with torch.autocast("cpu", torch.bfloat16), QuickConvolutions():
        return layer(images).dtype


def gradients(layer, images):
    """Return the gradients of images, filters and bias, of a loss that looks at every number."""
    images = images.detach().requires_grad_()
    output = layer(images)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return torch.autograd.grad((output * weights).sum(), [images, *layer.parameters()])


@pytest.fixture
def parts(monkeypatch):
    """Count how often the gradient of filters is put together from parts."""
    calls = []

    def counted(*args):
        calls.append(1)
        return filter_gradient(*args)

    monkeypatch.setattr(depthwise, "filter_gradient", counted)
    return calls


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8), torch.float32),
        (nn.Conv2d(8, 8, 3, stride=2, dilation=2, groups=8), torch.float32),
        (nn.Conv2d(8, 16, 3, stride=(1, 2), groups=8, bias=False), torch.float32),
        (nn.Conv2d(8, 8, 2, stride=2, groups=8), torch.float32),
        (nn.Conv2d(8, 8, 5, groups=8), torch.float32),  # smaller than its input
        (nn.Conv2d(8, 8, 3, stride=2, groups=8), torch.bfloat16),
        (nn.Conv2d(8, 8, 3, groups=8), torch.bfloat16),
        (nn.Conv2d(8, 8, 5, groups=8, padding="same"), torch.bfloat16),
        (nn.Conv2d(8, 8, 5, groups=8, padding=2, bias=False), torch.bfloat16),
        (nn.Conv2d(8, 8, 5, stride=2, groups=2), torch.bfloat16),
        (nn.Conv2d(8, 4, 1), torch.bfloat16),
        (nn.Sequential(nn.Conv2d(8, 8, 5, stride=2, groups=8), nn.Conv2d(8, 4, 1)), torch.bfloat16),
    ],
)
def test_depthwise_convolutions_that_are_slow_in_bfloat16_leave_it(layer, expected):
    assert output_dtype(layer, torch.ones(2, 8, 6, 6)) == expected
    assert output_dtype(layer, torch.ones(2, 8, 6, 6, dtype=torch.bfloat16)) == expected


def test_a_convolution_of_one_channel_is_not_depthwise():
    assert output_dtype(nn.Conv2d(1, 8, 5, stride=2), torch.ones(2, 1, 6, 6)) == torch.bfloat16


def test_values_and_gradients_are_those_of_float32():
    torch.manual_seed(0)
    layer, images = nn.Conv2d(8, 8, 5, stride=2, groups=8), torch.randn(2, 8, 6, 6)
    expected = torch.autograd.grad(layer(images).square().sum(), layer.weight)[0]
    with torch.autocast("cpu", torch.bfloat16), QuickConvolutions():
        found = layer(images)
    assert torch.equal(found, layer(images))
    assert torch.equal(torch.autograd.grad(found.square().sum(), layer.weight)[0], expected)


def small_integers(*shape):
    """Return numbers whose products and sums bfloat16 holds exactly."""
    return torch.randint(-1, 2, shape).float()


@pytest.mark.parametrize("size", [(3, 3), (1, 3), (5, 1), (1, 1)])
@pytest.mark.parametrize("stride", [2, 3, (2, 1), (1, 3)])
@pytest.mark.parametrize("padding", [0, "half"])
@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (1, 2, 5, 5)])
def test_the_gradients_of_strides_in_bfloat16_are_exact_where_numbers_are(size, stride, padding, shape):
    torch.manual_seed(0)
    pads = (size[0] // 2, size[1] // 2) if padding == "half" else 0
    layer = nn.Conv2d(shape[1], shape[1], size, stride, pads, groups=shape[1])
    for parameter in layer.parameters():
        parameter.data = small_integers(*parameter.shape)
    images = small_integers(*shape).requires_grad_()
    output = layer(images)
    gradient = small_integers(*output.shape)
    learning = [images, *layer.parameters()]
    expected = torch.autograd.grad(output, learning, gradient)
    with torch.autocast("cpu", torch.bfloat16), QuickConvolutions():
        quick = layer(images)
    assert torch.equal(quick, output.bfloat16())
    for ours, theirs in zip(torch.autograd.grad(quick, learning, gradient.bfloat16()), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_keywords_reach_the_convolution():
    images, weight = torch.ones(1, 4, 5, 5, dtype=torch.bfloat16), torch.ones(4, 1, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), QuickConvolutions():
        assert (
            torch.conv2d(input=images, weight=weight, dilation=2, stride=2, groups=4).dtype == torch.float32
        )


@pytest.mark.parametrize("size", [(5, 5), (7, 7), (9, 9), (11, 11), (3, 5), (7, 5), (1, 7), (5, 13)])
@pytest.mark.parametrize("shape", [(3, 4, 11, 8), (2, 5, 12, 1), (1, 2, 13, 20)])
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_the_gradients_of_wide_filters_are_torchs_own(size, shape, form, parts):
    torch.manual_seed(0)
    padding = (size[0] // 2, size[1] // 2)
    layer = nn.Conv2d(shape[1], shape[1], size, padding=padding, groups=shape[1]).double()
    images = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=form)
    expected = gradients(layer, images)
    with QuickConvolutions():
        assert torch.equal(layer(images), nn.Conv2d.forward(layer, images))
        found = gradients(layer, images)
    assert parts == [1]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_wide_filter_agrees_with_finite_differences():
    layer = nn.Conv2d(2, 2, 5, padding=2, groups=2, dtype=torch.float64)
    images = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    with QuickConvolutions():
        assert gradcheck(layer, (images,))
        assert gradcheck(lambda weight: torch.conv2d(images, weight, padding=2, groups=2), (layer.weight,))


@pytest.mark.parametrize(("form", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_wide_filters_learn_in_single_and_half_precision(form, tolerance, parts):
    """As in training: float32 weights, channels last, more than one core's share of images."""
    torch.manual_seed(0)
    layer = nn.Conv2d(48, 48, 7, padding=3, groups=48)
    images = torch.randn(4, 48, 14, 14).contiguous(memory_format=torch.channels_last)
    expected = gradients(layer, images)
    with torch.autocast("cpu", torch.bfloat16, enabled=form == torch.bfloat16), QuickConvolutions():
        found = gradients(layer, images)
    assert parts == [1]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * theirs.abs().max().item())


def test_nothing_is_computed_for_what_does_not_learn(parts):
    layer = nn.Conv2d(4, 4, 5, padding=2, groups=4).requires_grad_(False)
    images = torch.randn(1, 4, 6, 6, requires_grad=True)
    with QuickConvolutions():
        output = layer(images)
    (gradient,) = torch.autograd.grad(output.sum(), images)
    assert parts == []
    torch.testing.assert_close(gradient, torch.autograd.grad(layer(images).sum(), images)[0])
    layer.requires_grad_()
    with QuickConvolutions():
        layer(images.detach()).sum().backward()
    assert parts == [1]
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 36.0))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 5, padding=2, stride=2, groups=4),
        nn.Conv2d(4, 4, 5, padding=4, dilation=2, groups=4),
        nn.Conv2d(4, 4, 5, groups=4),
        nn.Conv2d(4, 8, 5, padding=2, groups=4),
        nn.Conv2d(4, 4, 4, padding=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 11, padding=5, groups=4),
        nn.Conv2d(4, 4, 3, stride=2, groups=4),
    ],
)
def test_other_convolutions_stay_torchs_own(layer, parts):
    images = torch.randn(2, 4, 9, 9)
    expected = gradients(layer, images)
    with QuickConvolutions():
        found = gradients(layer, images)
    assert parts == []  # torch is as quick
    assert all(map(torch.equal, found, expected))
