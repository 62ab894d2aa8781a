"""Winograd's convolution: values and gradients of torch's own, and what it keeps and computes."""

import pytest
import torch
from torch.autograd import gradcheck

from finetune.model import winograd
from finetune.model.winograd import WinogradConvolution


def results(convolve, images, weight, bias):
    """Return the output and the gradients of all that learns, of a loss that looks at every number."""
    output = convolve(images, weight, bias)
    loss = (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)).sum()
    learning = [one for one in (images, weight, bias) if one is not None and one.requires_grad]
    return [output, *torch.autograd.grad(loss, learning)]


def torchs(images, weight, bias):
    return torch.conv2d(images, weight, bias, padding=1)


def operands(shape, outputs, dtype=torch.float64):
    torch.manual_seed(0)
    channels = shape[1]
    made = [torch.randn(one, dtype=dtype) for one in (shape, (outputs, channels, 3, 3), (outputs,))]
    made[:2] = [one.contiguous(memory_format=torch.channels_last) for one in made[:2]]
    return [one.requires_grad_() for one in made]


@pytest.mark.parametrize("side", [(1, 1), (2, 3), (4, 4), (5, 8), (8, 5), (7, 7), (14, 13)])
@pytest.mark.parametrize("channels", [(3, 5), (4, 4), (1, 2)])
@pytest.mark.parametrize("at_once", [1, 8, 256])
def test_values_and_gradients_are_torchs_own(side, channels, at_once, monkeypatch):
    monkeypatch.setattr(winograd, "_TILES_AT_ONCE", at_once)
    given = operands((5, channels[0], *side), channels[1])
    for ours, theirs in zip(results(WinogradConvolution.apply, *given), results(torchs, *given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_it_agrees_with_finite_differences():
    assert gradcheck(WinogradConvolution.apply, operands((2, 2, 5, 4), 3))


@pytest.mark.parametrize("shape", [(4, 128, 14, 14), (8, 256, 7, 7), (4, 160, 28, 20)])
def test_in_float32_the_error_is_near_that_of_torch(shape):
    given = operands(shape, 128, torch.float32)
    exact = results(torchs, *(one.detach().double().requires_grad_() for one in given))
    for ours, expected in zip(results(WinogradConvolution.apply, *given), exact, strict=True):
        error = (ours - expected).norm() / expected.norm()
        assert error < 1e-5
        assert ours.dtype == torch.float32


def test_the_same_bits_come_every_time():
    given = operands((9, 128, 14, 14), 128, torch.float32)
    first = results(WinogradConvolution.apply, *given)
    for _ in range(3):
        assert all(map(torch.equal, first, results(WinogradConvolution.apply, *given)))


def test_the_layer_behind_may_overwrite_the_output():
    given = operands((2, 4, 6, 5), 3)
    found = results(lambda *operands: WinogradConvolution.apply(*operands).relu_(), *given)
    expected = results(lambda *operands: torchs(*operands).relu_(), *given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_layouts_are_those_of_layers_around_it():
    output, of_images, of_weight, _ = results(
        WinogradConvolution.apply, *operands((2, 8, 6, 6), 12, torch.float32)
    )
    for one in (output, of_images, of_weight):
        assert one.is_contiguous(memory_format=torch.channels_last)


def test_a_gradient_of_another_layout_is_understood():
    images, weight, bias = operands((2, 3, 7, 9), 4)
    gradient = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    found = torch.autograd.grad(WinogradConvolution.apply(images, weight, bias), [images, weight], gradient)
    expected = torch.autograd.grad(torchs(images, weight, bias), [images, weight], gradient)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("learns", "expected"),
    [(0, ["_add_tiles"]), (1, ["_pixel_sums"]), (2, [])],
    ids=["images", "filters", "bias"],
)
def test_nothing_is_computed_for_what_does_not_learn(learns, expected, monkeypatch):
    given = operands((2, 3, 6, 6), 4)
    for one in given:
        one.requires_grad_(one is given[learns])
    (gradient,) = torch.autograd.grad(torchs(*given).square().sum(), given[learns])
    output = WinogradConvolution.apply(*given)
    called = []

    def count(name, original):
        monkeypatch.setattr(winograd, name, lambda *args: called.append(name) or original(*args))

    for name in ("_pixel_sums", "_add_tiles"):
        count(name, getattr(winograd, name))
    output.square().sum().backward()
    assert called == expected
    torch.testing.assert_close(given[learns].grad, gradient)


def test_no_more_is_kept_than_torch_keeps():
    images, weight, _ = operands((4, 16, 8, 8), 16)
    kept = []

    def keep(tensor):
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        WinogradConvolution.apply(images, weight, None)
    assert sorted(kept) == sorted(one.untyped_storage().data_ptr() for one in (images, weight))
