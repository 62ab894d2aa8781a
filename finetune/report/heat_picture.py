"""A heat map laid over its image."""

import numpy as np
from PIL import Image
from torch import Tensor

_GREY = 0.75  # how light the image is below its heat
_COVER = 0.8  # how much of it the hottest place hides
# From warm to hot; lightness rises too, for eyes that do not tell these colours apart and for grey printers.
_WARM, _HOT = np.array([200.0, 40.0, 0.0]), np.array([255.0, 235.0, 90.0])


def heat_picture(pixels: Tensor, heat: Tensor) -> Image.Image:
    """Draw what a model looked at: the image in grey, and in colour what speaks for a class.

    Args:
        pixels: uint8 (3, H, W), the part of the image that enters the model.
        heat: (h, w), 0–1, see `finetune.model.heat_map`.
    """
    grey = Image.fromarray(pixels.cpu().permute(1, 2, 0).numpy()).convert("L")
    wide = Image.fromarray(heat.cpu().float().numpy()).resize(grey.size, Image.Resampling.BICUBIC)
    share = np.asarray(wide).clip(0, 1)[:, :, None]
    colour = _WARM + (_HOT - _WARM) * share
    base = _GREY * np.asarray(grey, dtype=np.float32)[:, :, None]
    mixed = base + _COVER * share * (colour - base)
    return Image.fromarray(mixed.round().astype(np.uint8))
