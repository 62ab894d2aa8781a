"""Depthwise convolutions on a CPU, where torch is slow at training some of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

_QUICK_WIDTH = 3  # pixels: of a wider filter, torch's gradient takes 2 to 20 times as long as of its parts


class QuickDepthwise(TorchFunctionMode):
    """Within this context, convolutions on a CPU that look at each channel by itself train sooner.

    Filters wider than 3 pixels compute as ever and get their gradient from parts of 3. Under an autocast to
    bfloat16, convolutions with a stride, and what else has a slow back-propagation there, compute in float32.
    All other operations are those of the autocast. `benchmarks/layers.py` measures both.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or what takes its place where it is a depthwise convolution."""
        named = dict(kwargs or {})
        if func is not torch.conv2d:
            return func(*args, **named)
        given = _Arguments(*args, **named)
        if not given.is_depthwise:
            return func(*args, **named)
        if given.has_slow_filter and not torch.compiler.is_compiling():
            return _convolve(given)
        if given.is_quick_in_bfloat16 or not torch.is_autocast_enabled("cpu"):
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_to_float32, args), **{key: _to_float32(one) for key, one in named.items()})


class _Arguments(NamedTuple):
    """What `torch.conv2d` takes, under its names."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: int | tuple[int, ...] = 1
    padding: int | str | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1

    @property
    def is_depthwise(self) -> bool:
        """Whether there is one filter for each of several channels, or several."""
        return self.weight.shape[1] == 1 < self.input.shape[-3]

    @property
    def is_quick_in_bfloat16(self) -> bool:
        """Whether torch trains it in bfloat16 as quickly as it should."""
        return self.stride in (1, (1, 1)) and self.weight.shape[3] <= _QUICK_WIDTH

    @property
    def has_slow_filter(self) -> bool:
        """Whether it is one that `_DepthwiseConvolution` computes."""
        channels, _, height, width = self.weight.shape
        same = (height // 2, width // 2)
        return (
            width > _QUICK_WIDTH
            and height % 2 == width % 2 == 1
            and self.input.ndim == 4
            and self.input.shape[1] == channels
            and self.stride in (1, (1, 1))
            and self.dilation in (1, (1, 1))
            and (self.padding in (same, "same") or (self.padding == same[0] == same[1]))
        )


def _convolve(given: _Arguments) -> Tensor:
    """Compute a convolution with a slow filter, in the precision of the autocast around it."""
    images, weight, bias = given.input, given.weight, given.bias
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        images, weight, bias = images.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast("cpu", enabled=False):
        result: Tensor = _DepthwiseConvolution.apply(images, weight, bias)
    return result


class _DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution with odd filters and a stride of 1, whose output is as large as its input."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve images (N, C, H, W) with a filter (C, 1, h, w) each, and add the bias (C,)."""
        ctx.save_for_backward(images, weight)
        return torch.conv2d(images, weight, bias, padding=_same(weight), groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of images, filters and bias, from that of the output (N, C, H, W)."""
        images, weight = ctx.saved_tensors
        of_images, of_weight, of_bias = ctx.needs_input_grad
        return (
            _gradient(gradient, images, weight) if of_images else None,
            filter_gradient(gradient, images, weight.shape[2:]) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
        )


def filter_gradient(gradient: Tensor, images: Tensor, size: Sequence[int]) -> Tensor:
    """Return the gradient of the filters of a depthwise convolution (C, 1, h, w), from parts 3 pixels wide.

    Rows of pixels lie one behind the other with zeros between them, so that the images moved sideways are
    the same memory, read from another pixel on: nothing is copied for a part.

    Args:
        gradient: of the output, (N, C, H, W).
        images: (N, C, H, W).
        size: (h, w) of a filter, both odd; w is above 1.
    """
    n, channels, height, width = images.shape
    reach = size[1] // 2
    pixels = _spaced(images, reach, margin=reach)
    spaced = _spaced(gradient, reach).view(n, height, width + reach, channels)
    parts = []
    for column in range(0, size[1], _QUICK_WIDTH):
        part = 3 if size[1] - column > 1 else 1
        first = column + part // 2  # the pixel before which the row begins, if the part lies on its middle
        moved = pixels[first * channels :][: spaced.numel()].view(spaced.shape).permute(0, 3, 1, 2)
        filters = images.new_empty((channels, 1, size[0], part))
        parts.append(_gradient(spaced.permute(0, 3, 1, 2), moved, filters, of_filters=True))
    return torch.cat(parts, dim=3)[..., : size[1]]


def _spaced(images: Tensor, space: int, *, margin: int = 0) -> Tensor:
    """Return the pixels of images (N, C, H, W) as numbers, with `space` zeros of each channel between rows.

    One of them lies before a row, and `margin` lie before and behind everything.
    """
    n, channels, height, width = images.shape
    around = margin * channels
    numbers = images.new_empty(n * height * (width + space) * channels + 2 * around)
    rows = numbers[around : len(numbers) - around].view(n, height, width + space, channels)
    numbers[:around] = numbers[len(numbers) - around :] = rows[:, :, 0] = rows[:, :, width + 1 :] = 0
    rows[:, :, 1 : width + 1] = images.permute(0, 2, 3, 1)
    return numbers


def _gradient(output: Tensor, images: Tensor, weight: Tensor, *, of_filters: bool = False) -> Tensor:
    """Return the gradient of the images, or of the filters, from that of the output, as torch computes it."""
    wanted = [not of_filters, of_filters, False]
    found = torch.ops.aten.convolution_backward(
        output, images, weight, None, [1, 1], _same(weight), [1, 1], False, [0, 0], len(weight), wanted
    )
    result: Tensor = found[int(of_filters)]
    return result


def _same(weight: Tensor) -> list[int]:
    """Return the padding by which the output is as large as the input."""
    return [side // 2 for side in weight.shape[2:]]


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
