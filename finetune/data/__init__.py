"""Which images there are, what class each has, and whether it trains, validates or tests."""

from finetune.data.copies import find_copies
from finetune.data.fingerprint import Fingerprint, take_fingerprints
from finetune.data.index import BadImage, ImageIndex, Sample, Split, load_sample
from finetune.data.indexing import FolderIndex, index_folder, index_images
from finetune.data.lookalikes import find_lookalikes
from finetune.data.scan import BadImagesError, check_images, leave_out_bad, odd_images
from finetune.data.scan_memory import ScanMemory

__all__ = [
    "BadImage",
    "BadImagesError",
    "Fingerprint",
    "FolderIndex",
    "ImageIndex",
    "Sample",
    "ScanMemory",
    "Split",
    "check_images",
    "find_copies",
    "find_lookalikes",
    "index_folder",
    "index_images",
    "leave_out_bad",
    "load_sample",
    "odd_images",
    "take_fingerprints",
]
