"""Image files of unknown quality: into RGB pixels, or a few words on why not."""

from finetune.images.reading import (
    FORMATS,
    ImageError,
    ImageFacts,
    ImageLimits,
    SixteenBit,
    inspect_image,
    parse_colour,
    read_image,
)
from finetune.images.reasons import file_reason

__all__ = [
    "FORMATS",
    "ImageError",
    "ImageFacts",
    "ImageLimits",
    "SixteenBit",
    "file_reason",
    "inspect_image",
    "parse_colour",
    "read_image",
]
