"""Small pictures for a page that needs no other file."""

from base64 import b64encode
from io import BytesIO

from PIL import Image

from finetune.data.image_files import in_archive
from finetune.data.images import ImageLimits
from finetune.data.index import ImageIndex, Sample, load_sample

SIDE = 160
"""longest side of a thumbnail in pixels"""

_QUALITY = 72


def load_thumbnail(index: ImageIndex, sample: Sample, limits: ImageLimits) -> Image.Image:
    """Load the image of a sample, small.

    Raises:
        ImageError: it cannot be read (any more).
    """
    return thumbnail_of(load_sample(index, sample, limits, shrink_to=SIDE))


def address_of(index: ImageIndex, name: str) -> str:
    """Return the address of an image for a link; empty for one of a built-in data set, or in an archive."""
    if index.root is None or in_archive(index.root / name):
        return ""  # no browser opens a member of an archive
    return (index.root / name).absolute().as_uri()


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
