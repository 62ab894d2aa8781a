"""Image files of unknown quality: into RGB pixels, or a few words on why not."""

from finetune.choices import SixteenBit
from finetune.data.images.decode import (
    ImageError,
    ImageInfo,
    convert_image,
    decode_image,
    inspect_image,
    read_image,
)
from finetune.data.images.diagnose import file_reason
from finetune.data.images.formats import FORMATS
from finetune.data.images.limits import ImageLimits, parse_colour
from finetune.data.images.look import DETAIL_SIDE, THUMBNAIL_SIDE, Look, enlarge_thumbnail, look_at_image
from finetune.data.images.parallel import inspect_images, look_at_images

__all__ = [
    "DETAIL_SIDE",
    "FORMATS",
    "THUMBNAIL_SIDE",
    "ImageError",
    "ImageInfo",
    "ImageLimits",
    "Look",
    "SixteenBit",
    "convert_image",
    "decode_image",
    "enlarge_thumbnail",
    "file_reason",
    "inspect_image",
    "inspect_images",
    "look_at_image",
    "look_at_images",
    "parse_colour",
    "read_image",
]
