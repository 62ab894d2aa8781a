"""Small pictures for a page that needs no other file."""

from base64 import b64encode
from io import BytesIO

from PIL import Image

SIDE = 160
"""longest side of a thumbnail in pixels"""

_QUALITY = 72


def thumbnail_of(image: Image.Image) -> Image.Image:
    """Return an RGB image that is at most `SIDE` pixels wide and high."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def encoded(image: Image.Image) -> str:
    """Return an image as base64 of a JPEG."""
    content = BytesIO()
    image.save(content, "JPEG", quality=_QUALITY)
    return b64encode(content.getvalue()).decode()
