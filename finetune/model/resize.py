"""Resize and crop pixels as torchvision does, to the bit, in operations that every runtime has.

torch resizes uint8 in two passes, along the width and then along the height, each with whole-number weights
and rounded to whole levels (`aten/src/ATen/native/cpu/UpSampleKernel.cpp`). A resize of another runtime
rounds otherwise: a level more or less here and there, of which a network may make a thousandth of a
probability. Here both passes are products of matrices. Their entries are whole numbers, exact in float64.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from finetune.choices import Interpolation

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_MOST_BITS = 22
_A = -0.5  # of the cubic filter, as Pillow has it


def resize_and_crop_pixels(pixels: Tensor, *, resize_to: int, crop_to: int, how: Interpolation) -> Tensor:
    """Resize the shorter side of pixels (N, C, H, W), uint8, and crop the centre: (N, C, S, S), uint8.

    Args:
        pixels: the pixels, of any size.
        resize_to: length of the shorter side.
        crop_to: side S of the crop.
        how: the interpolation.
    """
    height, width = pixels.shape[2:]
    short: Any = torch.sym_min(height, width)  # a symbol where the program is exported
    new_height, new_width = resize_to * height // short, resize_to * width // short
    crop = torch.arange(crop_to, device=pixels.device)
    rows, columns = crop + _offset(new_height, crop_to), crop + _offset(new_width, crop_to)
    if how == "nearest":
        resized = F.interpolate(pixels, size=(new_height, new_width), mode=how)
        # Not a slice: an exporter takes its size for a function of the picture's, and not for a number.
        return resized.index_select(2, rows).index_select(3, columns)
    across, across_bits = _weights(width, new_width, how, pixels.device)
    down, down_bits = _weights(height, new_height, how, pixels.device)
    narrow = _rounded(pixels.double() @ across.index_select(0, columns).T, across_bits)
    small = _rounded(down.index_select(0, rows) @ narrow, down_bits)
    return small.to(torch.uint8)


def _weights(size: int, new_size: int, how: Interpolation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the weights of each new pixel (new size, size) as whole numbers, and the sum of one's."""
    scale = torch.full((), 1.0, dtype=torch.float64, device=device) * size / new_size
    spread = scale.clamp(min=1.0)
    support = _SUPPORT[how] * spread
    centres = (torch.arange(new_size, device=device).double() + 0.5)[:, None] * scale
    places = torch.arange(size, device=device)[None, :]
    first = (centres - support + 0.5).trunc().clamp(min=0.0)
    last = (centres + support + 0.5).trunc().clamp(max=size)
    inside = (places >= first) & (places < last)
    values = _filter((places - centres + 0.5) / spread, how) * inside
    values = values / values.sum(1, keepdim=True)
    powers = 2.0 ** torch.arange(1, _MOST_BITS + 1, device=device).double()
    bits = ((0.5 + values.max() * powers).floor() < 2**15).double().sum()
    one = 2.0**bits
    return values.sign() * (0.5 + values.abs() * one).floor(), one


def _filter(distance: Tensor, how: Interpolation) -> Tensor:
    x = distance.abs()
    if how == "bilinear":
        return (1 - x).clamp(min=0.0)
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _rounded(sums: Tensor, one: Tensor) -> Tensor:
    """Return sums of levels times weights as whole levels, 0–255."""
    return ((sums + one / 2) / one).floor().clamp(0, 255)


def _offset(side: int, wanted: int) -> int:
    """Return where a crop of the centre begins: half of what is left over, halves to the even number."""
    left_over = side - wanted
    half = left_over // 2
    return half + (left_over % 2) * (half % 2)
