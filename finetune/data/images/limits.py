"""What an image file may be, and how the unusual ones become RGB."""

from dataclasses import dataclass

from PIL import ImageColor

from finetune.choices import SixteenBit


@dataclass(frozen=True)
class ImageLimits:
    """What a file may be, and how the unusual ones become RGB."""

    max_pixels: int = 50_000_000
    """most pixels (width × height) of a file, read from its header before anything is decoded"""
    sixteen_bit: SixteenBit = "scale"
    """16-bit grey: scaled from its full range to 0–255, or refused"""
    background: tuple[int, int, int] = (255, 255, 255)
    """colour, 0–255 each, that shows through transparent pixels"""


def parse_colour(written: str) -> tuple[int, int, int]:
    """Read a colour such as `#ffffff` or `white`.

    Raises:
        ValueError: no such colour.
    """
    red, green, blue, *_ = ImageColor.getrgb(written)
    return red, green, blue
