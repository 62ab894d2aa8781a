"""Images of an index as torch data sets: loaded, augmented, and put together to batches.

The data sets hold nothing that changes, so neither workers nor skipped batches can change what a batch holds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from finetune.choices import Split
from finetune.data.images import ImageError, ImageLimits
from finetune.data.index import ImageIndex, load_sample
from finetune.data.loading.decoded import DecodedImages
from finetune.data.loading.draws import Draw, DrawnBatch, pack
from finetune.data.loading.sampler import TrainKey
from finetune.data.loading.transforms import Transform
from finetune.data.loading.workers import one_thread
from finetune.data.metadata import EncodedRow, stack_metadata
from finetune.seed import drawing_from


class Unreadable(NamedTuple):
    """Takes the place of an image that cannot be read (any more), up to the main process.

    An exception would arrive there as another one, with a worker's traceback for a message.
    """

    name: str
    reason: str


Target = int | list[float]
"""A class, or for images that may have several 0 and 1 for each of them."""


class Item(NamedTuple):
    """One image as it is loaded."""

    image: Tensor | Draw
    """(3, H, W), uint8; a `Draw` where the device varies it"""
    metadata: EncodedRow | None
    """None where there is none"""
    target: Target


class TrainImages(Dataset[Item | Unreadable]):
    """The training images, augmented as the seed in the key says."""

    def __init__(self, index: ImageIndex, limits: ImageLimits, transform: Transform) -> None:
        self.index, self.limits, self.transform = index, limits, transform
        self.samples = index.of_split("train")
        self.decoded: DecodedImages | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: TrainKey) -> Item | Unreadable:
        with drawing_from(key.seed):
            return _load(self, key.position)


class EvalImages(Dataset[Item | Unreadable]):
    """The images of a split, in order."""

    def __init__(
        self, index: ImageIndex, limits: ImageLimits, transform: Transform, *, split: Split = "val"
    ) -> None:
        self.index, self.limits, self.transform = index, limits, transform
        self.samples = index.of_split(split)
        self.decoded: DecodedImages | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Item | Unreadable:
        return _load(self, position)


def collate(items: Sequence[Item | Unreadable]) -> tuple[Tensor | DrawnBatch, ...] | Unreadable:
    """Put images together to a batch: images (N, 3, H, W), metadata where there is any, and targets.

    Images that the device varies come as a `DrawnBatch`.
    """
    for item in items:
        if isinstance(item, Unreadable):
            return item
    images, metadata, targets = zip(*items, strict=True)
    if isinstance(images[0], Draw):
        return pack(images), *stack_metadata(metadata), torch.tensor(targets)
    # In a worker this stacks straight into shared memory.
    return default_collate(list(images)), *stack_metadata(metadata), torch.tensor(targets)


def _load(images: TrainImages | EvalImages, position: int) -> Item | Unreadable:
    sample, index = images.samples[position], images.index
    shown: Tensor | None = None if images.decoded is None else images.decoded.get(position)
    image: Tensor | Image.Image | None = shown
    if image is None:
        try:
            image = load_sample(index, sample, images.limits, shrink_to=images.transform.shrink_to)
        except ImageError as error:
            return Unreadable(error.name, error.reason)
    row = None if index.metadata is None else index.metadata.encode(sample.metadata)
    with one_thread():
        if shown is None or not images.transform.fixed:
            return Item(images.transform(image), row, index.target(sample))
        return Item(shown, row, index.target(sample))
