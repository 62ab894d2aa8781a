"""Convolutions that train sooner on a CPU than torch's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from finetune.model.depthwise import (
    DepthwiseConvolution,
    Pair,
    half_sides,
    has_quick_way,
    is_slow_depthwise,
)
from finetune.model.winograd import WinogradConvolution, gains_by_winograd, suits_winograd


class QuickConvolutions(TorchFunctionMode):
    """Within this context, convolutions on a CPU train sooner where torch is slow at them.

    Filters of 3 × 3 between many channels multiply less, in float32. Depthwise filters wider than 3 pixels
    get their gradient from parts of 3; in bfloat16, where a depthwise convolution has a stride, the images
    get theirs from one without. Other depthwise ones that torch is slow at in bfloat16 compute in float32
    under an autocast. All other operations are left alone. `benchmarks/layers.py` measures it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or what takes its place where it is a convolution."""
        named = dict(kwargs or {})
        if func is not torch.conv2d:
            return func(*args, **named)
        given, in_bfloat16 = _Arguments(*args, **named), torch.is_autocast_enabled("cpu")
        compiled = torch.compiler.is_compiling()
        if not in_bfloat16 and not compiled and given.gains_by_winograd:
            return WinogradConvolution.apply(given.input, given.weight, given.bias)
        channels = given.input.shape[-3]
        if not is_slow_depthwise(given.weight, channels, given.stride, in_bfloat16=in_bfloat16):
            return func(*args, **named)
        if given.has_quick_way and not compiled:
            return _convolve_depthwise(given)
        if not in_bfloat16:
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_to_float32, args), **{key: _to_float32(one) for key, one in named.items()})


def gains_by_quick_convolutions(network: nn.Module, *, in_bfloat16: bool) -> bool:
    """Tell whether a network may have convolutions that `QuickConvolutions` hastens; it takes time itself."""
    return any(
        is_slow_depthwise(layer.weight, layer.in_channels, layer.stride, in_bfloat16=in_bfloat16)
        or (suits_winograd(layer.weight) and not in_bfloat16)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    )


class _Arguments(NamedTuple):
    """What `torch.conv2d` takes, under its names."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: int | Pair = 1
    padding: int | str | Pair = 0
    dilation: int | Pair = 1
    groups: int = 1

    @property
    def pads(self) -> Pair:
        """By how many pixels each side of the images is padded, vertically and horizontally."""
        if isinstance(self.padding, str):
            return half_sides(self.weight) if self.padding == "same" else (0, 0)
        return _pair(self.padding)

    @property
    def gains_by_winograd(self) -> bool:
        """Whether it has filters of 3 × 3 with their middle on every pixel, and the size that gains."""
        placed = (_pair(self.stride), self.pads, _pair(self.dilation), self.groups)
        return placed == ((1, 1), (1, 1), (1, 1), 1) and gains_by_winograd(self.input, self.weight)

    @property
    def has_quick_way(self) -> bool:
        """Whether `DepthwiseConvolution` can take its place, if it is depthwise."""
        return _pair(self.dilation) == (1, 1) and has_quick_way(
            self.input, self.weight, _pair(self.stride), self.pads
        )


def _convolve_depthwise(given: _Arguments) -> Tensor:
    """Compute a depthwise convolution in the precision of the autocast around it."""
    images, weight, bias = given.input, given.weight, given.bias
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        images, weight, bias = images.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast("cpu", enabled=False):
        result: Tensor = DepthwiseConvolution.apply(images, weight, bias, _pair(given.stride), given.pads)
    return result


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
