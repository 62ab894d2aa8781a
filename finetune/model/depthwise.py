"""Depthwise convolutions in float32 under autocast: on a CPU their back-propagation in bfloat16 is slow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class DepthwiseInFloat32(TorchFunctionMode):
    """Within this context, convolutions on a CPU that look at each channel by itself compute in float32.

    All other operations are those of the autocast around it. Training so took 0.8 to 0.96 times as long as in
    float32, and all of it in bfloat16 1.3 to 1.8 times as long (`benchmarks/precision.py`).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch: with its tensors in float32 where it is a depthwise convolution."""
        named = dict(kwargs or {})
        if func is not torch.conv2d or not _is_depthwise(*args, **named):
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_to_float32, args), **{key: _to_float32(one) for key, one in named.items()})


def _is_depthwise(*args: Any, **named: Any) -> bool:
    """Tell whether the arguments of `torch.conv2d` are those of one filter for each of several channels."""
    images: Tensor = args[0] if args else named["input"]
    weight: Tensor = args[1] if len(args) > 1 else named["weight"]
    return weight.shape[1] == 1 < images.shape[-3]


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
