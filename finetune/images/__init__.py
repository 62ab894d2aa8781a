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

__all__ = [
    "FORMATS",
    "ImageError",
    "ImageFacts",
    "ImageLimits",
    "SixteenBit",
    "inspect_image",
    "parse_colour",
    "read_image",
]
