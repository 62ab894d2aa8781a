"""Image files of unknown quality: into RGB pixels, or a few words on why not."""

from finetune.images.parallel import look_at_images
from finetune.images.reading import (
    FORMATS,
    THUMBNAIL_SIDE,
    ImageError,
    ImageFacts,
    ImageLimits,
    Look,
    SixteenBit,
    inspect_image,
    look_at_image,
    parse_colour,
    read_image,
)
from finetune.images.reasons import file_reason

__all__ = [
    "FORMATS",
    "THUMBNAIL_SIDE",
    "ImageError",
    "ImageFacts",
    "ImageLimits",
    "Look",
    "SixteenBit",
    "file_reason",
    "inspect_image",
    "look_at_image",
    "look_at_images",
    "parse_colour",
    "read_image",
]
