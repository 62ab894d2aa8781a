"""Convert a decoded image of any mode into RGB."""

import numpy as np
from PIL import Image

from finetune.data.images.limits import ImageLimits

_BITS_PER_SAMPLE_TAG = 0x0102
_ROWS = 256  # that are converted at a time, where that takes several times the memory of the picture


def to_rgb(image: Image.Image, limits: ImageLimits) -> Image.Image:
    """Convert any mode that passed `_check_header`; the result does not hold on to the file."""
    if image.mode.startswith("I"):
        return _sixteen_bit_to_grey(image).convert("RGB")
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _on_ground(image.convert("RGBA"), limits.background)
    return image.convert("RGB")


def _on_ground(layer: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Lay an image with transparency on a colour, some rows at a time: the whole would be held five times."""
    result = Image.new("RGB", layer.size)
    for top in range(0, layer.height, _ROWS):
        rows = layer.crop((0, top, layer.width, min(top + _ROWS, layer.height)))
        ground = Image.new("RGBA", rows.size, (*background, 255))
        result.paste(Image.alpha_composite(ground, rows).convert("RGB"), (0, top))
    return result


def _sixteen_bit_to_grey(image: Image.Image) -> Image.Image:
    """Scale 0 … 65535 to 0 … 255, and 0 … 4095 where a TIFF declares 12 bits."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE_TAG)
    highest = 4095 if bits in (12, (12,)) else 65535
    values = np.asarray(image)
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):  # 64 bits of all pixels would be eight times the picture
        rows = values[top : top + _ROWS].astype(np.int64).clip(0, highest)
        grey[top : top + _ROWS] = (rows * 255 + highest // 2) // highest
    return Image.fromarray(grey)
