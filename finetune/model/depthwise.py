"""Depthwise convolutions on a CPU, where torch is slow at training some of them."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_QUICK_WIDTH = 3  # pixels: of a wider filter, torch's gradient takes 2 to 20 times as long as of its parts

Pair = tuple[int, int]


def is_slow_depthwise(
    weight: Tensor, channels: int, stride: int | tuple[int, ...], *, in_bfloat16: bool
) -> bool:
    """Tell whether a convolution has filters for each of several channels, at which torch is slow."""
    is_depthwise = weight.shape[1] == 1 < channels
    return is_depthwise and (_is_wide(weight) or (in_bfloat16 and stride not in (1, (1, 1))))


def has_quick_way(images: Tensor, weight: Tensor, stride: Pair, pads: Pair) -> bool:
    """Tell whether there is one filter of odd sides for each channel, placed as `DepthwiseConvolution` can.

    Narrow ones have their middles on pixels of the images. Wide ones have one on every pixel, and are no
    taller than the images: of those torch is slow at parts as well.
    """
    height, width = weight.shape[2:]
    odd = height % 2 == width % 2 == 1
    if not odd or images.ndim != 4 or images.shape[1] != len(weight):
        return False
    if _is_wide(weight):
        return _is_on_every_pixel(weight, stride, pads) and height <= images.shape[2]
    return all(pad <= half for pad, half in zip(pads, half_sides(weight), strict=True))


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution of which torch is slow at one of the gradients."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, pads: Pair
    ) -> Tensor:
        """Convolve images (N, C, H, W) with a filter (C, 1, h, w) each, and add the bias (C,)."""
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.pads = stride, pads
        return torch.conv2d(images, weight, bias, stride, pads, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of images, filters and bias, from that of the output."""
        images, weight = ctx.saved_tensors
        stride, pads = ctx.stride, ctx.pads
        of_images = of_filters = of_bias = None
        if ctx.needs_input_grad[0]:
            whole = _is_on_every_pixel(weight, stride, pads)
            spread = gradient if whole else _spread(gradient, images, weight, stride, pads)
            of_images = _gradient("images", spread, images, weight)
        if ctx.needs_input_grad[1] and _is_wide(weight):
            of_filters = filter_gradient(gradient, images, weight.shape[2:])
        elif ctx.needs_input_grad[1]:
            of_filters = _gradient("filters", gradient, images, weight, stride, pads)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_images, of_filters, of_bias, None, None


def filter_gradient(gradient: Tensor, images: Tensor, size: Sequence[int]) -> Tensor:
    """Return the gradient of the filters of a depthwise convolution (C, 1, h, w), from parts 3 pixels wide.

    Rows of pixels lie one behind the other with zeros between them, so that the images moved sideways are
    the same memory, read from another pixel on: nothing is copied for a part.

    Args:
        gradient: of the output of a convolution on every pixel, (N, C, H, W).
        images: (N, C, H, W).
        size: (h, w) of a filter, both odd; w is above 3.
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
        parts.append(_gradient("filters", spaced.permute(0, 3, 1, 2), moved, filters))
    return torch.cat(parts, dim=3)[..., : size[1]]


def _spread(gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, pads: Pair) -> Tensor:
    """Put a gradient onto the pixels on which filters had their middles, and zeros onto all others."""
    spread = torch.zeros_like(images, memory_format=torch.channels_last)
    top, left = (half - pad for half, pad in zip(half_sides(weight), pads, strict=True))
    height, width = gradient.shape[2:]
    spread[:, :, top :: stride[0], left :: stride[1]][:, :, :height, :width] = gradient
    return spread


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


def _gradient(
    of: Literal["images", "filters"],
    output: Tensor,
    images: Tensor,
    weight: Tensor,
    stride: Pair = (1, 1),
    pads: Pair | None = None,
) -> Tensor:
    """Return the gradient of the images, or of the filters, from that of the output, as torch computes it."""
    place = ("images", "filters").index(of)
    padding = half_sides(weight) if pads is None else pads
    wanted = [place == 0, place == 1, False]
    found = torch.ops.aten.convolution_backward(
        output, images, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
    result: Tensor = found[place]
    return result


def _is_wide(weight: Tensor) -> bool:
    """Tell whether torch is slow at the gradient of filters."""
    return weight.shape[3] > _QUICK_WIDTH


def _is_on_every_pixel(weight: Tensor, stride: Pair, pads: Pair) -> bool:
    """Tell whether a filter has its middle on each pixel, so that the output is as large as the images."""
    return stride == (1, 1) and pads == half_sides(weight)


def half_sides(weight: Tensor) -> Pair:
    """Return how far filters reach, which is the padding by which the output is as large as the input."""
    return weight.shape[2] // 2, weight.shape[3] // 2
