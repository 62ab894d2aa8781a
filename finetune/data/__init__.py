"""Which images there are, what class each has, and whether it trains, validates or tests."""

from finetune.data.fingerprint import Fingerprint, take_fingerprints
from finetune.data.index import BadImage, ImageIndex, Sample, Split, load_sample
from finetune.data.indexing import FolderIndex, index_folder, index_images
from finetune.data.scan import BadImagesError, check_images

__all__ = [
    "BadImage",
    "BadImagesError",
    "Fingerprint",
    "FolderIndex",
    "ImageIndex",
    "Sample",
    "Split",
    "check_images",
    "index_folder",
    "index_images",
    "load_sample",
    "take_fingerprints",
]
