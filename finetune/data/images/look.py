"""Look at an image file thoroughly: what it is, what it looks like, and what tells it from others."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from finetune.data.images.appearance import SIDE, Appearance, judge_appearance
from finetune.data.images.convert import to_rgb
from finetune.data.images.decode import DECODER_ERRORS, ImageInfo, is_animated, opened, read_image, upright
from finetune.data.images.limits import ImageLimits

_CAMERA_TAGS = (0x010F, 0x0110)  # make and model

THUMBNAIL_SIDE = 16
"""pixels"""

DETAIL_SIDE = 32
"""pixels of what decides whether two thumbnails that look alike are of one image"""


@dataclass(frozen=True)
class Look:
    """What a thorough look at a readable file gives."""

    info: ImageInfo
    mode: str
    """Pillow's name of how the file stores a pixel: `RGB`, `L`, `P`, `CMYK`, `RGBA`, `I;16` and others"""
    thumbnail: bytes
    """the upright image in 16 × 16 grey pixels, row by row"""
    appearance: Appearance
    camera: str
    """make and model by its EXIF data; empty where it says nothing"""


def look_at_image(path: str | Path, limits: ImageLimits) -> Look:
    """Decode a file completely, as `inspect_image` does, and also return what two images are compared by.

    Raises:
        ImageError: as `read_image`.
    """
    with opened(path, limits) as image:
        size, mode = image.size, image.mode
        image.draft(None, (SIDE, SIDE))
        colours = to_rgb(upright(image), limits)
        grey = colours.convert("L")
        side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        small = grey.resize(side, Image.Resampling.BICUBIC, reducing_gap=3.0)
        info = ImageInfo(*size, is_animated(image))
        appearance = judge_appearance(grey, colours)
        return Look(info, mode, small.tobytes(), appearance, _camera(image))


def enlarge_thumbnail(path: Path, limits: ImageLimits) -> bytes:
    """Return the upright image of a file in `DETAIL_SIDE` × `DETAIL_SIDE` pixels, YCbCr, row by row.

    Raises:
        ImageError: as `read_image`.
    """
    image = read_image(path, limits, shrink_to=SIDE).convert("YCbCr")
    return image.resize((DETAIL_SIDE, DETAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0).tobytes()


def _camera(image: Image.Image) -> str:
    """Return what took an image, as its EXIF data says."""
    try:
        exif = image.getexif()
    except DECODER_ERRORS:
        return ""
    texts = (str(exif.get(tag, "")).partition("\0")[0] for tag in _CAMERA_TAGS)  # some end before they end
    return " ".join(" ".join(texts).split())
