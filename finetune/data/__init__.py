"""Which images there are, what class each has, and whether it trains, validates or tests."""

from finetune.data.copies import find_copies, find_copies_in
from finetune.data.fingerprint import Fingerprint, take_fingerprints
from finetune.data.hold_out import group_shares
from finetune.data.index import LABEL_JOINT, SPLIT_HEADER, BadImage, ImageIndex, Sample, Split, load_sample
from finetune.data.indexing import index_images
from finetune.data.lookalikes import find_lookalikes
from finetune.data.matching import MatchedIndex, match_classes
from finetune.data.scan import BadImagesError, check_images, leave_out_bad, odd_images
from finetune.data.scan_memory import ScanMemory

__all__ = [
    "LABEL_JOINT",
    "SPLIT_HEADER",
    "BadImage",
    "BadImagesError",
    "Fingerprint",
    "ImageIndex",
    "MatchedIndex",
    "Sample",
    "ScanMemory",
    "Split",
    "check_images",
    "find_copies",
    "find_copies_in",
    "find_lookalikes",
    "group_shares",
    "index_images",
    "leave_out_bad",
    "load_sample",
    "match_classes",
    "odd_images",
    "take_fingerprints",
]
