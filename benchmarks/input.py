"""Measure how fast images come to a network, per core, beside fastai's own loader.

    python benchmarks/input.py                       # two minutes
    python benchmarks/input.py --images 1000 --rounds 9

JPEGs of 500 × 375 are drawn in two class folders. Each loader gives an epoch of normalised float32 batches of
64 at 224 px, in this one process on one thread; they take turns. fastai's is `ImageDataLoaders` with the
nearest to our `standard`: RandomResizedCrop(min_scale=0.35), mirroring, brightness, contrast and saturation
by 0.2, the last four for a batch at a time, as fastai has them. `without batch transforms` is the same
loader before these and the normalisation, which fastai leaves to a GPU where there is one.

`decoded once` is ours from the second pass on, with `data.cache`: what an epoch costs that finds the images
decoded, in files that the system holds in memory. The pass that decodes them is timed by itself.

What is printed is the median of the rounds, and the median of their ratios to fastai's with quartiles,
because a machine's speed is noisy.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import draw_photo

from finetune.choices import Augment
from finetune.data.image_files import SETTLED
from finetune.data.images import ImageLimits
from finetune.data.index import ImageIndex, Sample
from finetune.data.loading.dataset import TrainImages
from finetune.data.loading.decode_once import decode_missing
from finetune.data.loading.decoded import DecodedImages
from finetune.data.loading.decoded_store import DecodedStore
from finetune.data.loading.loaders import build_train_loader
from finetune.data.loading.transforms import train_transform
from finetune.model.preprocessing import Preprocessing
from finetune.progress import Bar

BATCH, SIZE = 64, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = Preprocessing(SIZE, 256, MEAN, STD, "bilinear")
DRAWN = 60  # different pictures; all others are these, at other qualities
LEVELS: tuple[Augment, ...] = ("none", "light", "standard", "strong")

Epoch = Callable[[], int]
"""loads all images once, and returns their number"""


def draw_folder(folder: Path, images: int) -> ImageIndex:
    """Write the JPEGs, and return them as training images."""
    generator = np.random.default_rng(0)
    photos = [draw_photo(generator) for _ in range(min(DRAWN, images))]
    samples = []
    for number in range(images):
        label = number % 2
        path = folder / "ab"[label] / f"{number:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        photos[number % len(photos)].save(path, quality=88 + number // DRAWN % 5)
        samples.append(Sample(path.relative_to(folder).as_posix(), (label,), "train"))
    return ImageIndex(folder, ("a", "b"), tuple(samples))


def fastai_epochs(folder: Path) -> dict[str, Epoch]:
    """Return epochs of fastai's loader, as its users make it: whole, and without its batch transforms."""
    from fastai.data.transforms import Normalize
    from fastai.vision.augment import Brightness, Contrast, Flip, RandomResizedCrop, Saturation
    from fastai.vision.data import ImageDataLoaders

    def build(batch_tfms: list[Any]) -> Any:
        loaders = ImageDataLoaders.from_folder(
            folder,
            valid_pct=0.01,
            seed=0,
            item_tfms=RandomResizedCrop(SIZE, min_scale=0.35),
            batch_tfms=batch_tfms,
            bs=BATCH,
            num_workers=0,
            device=torch.device("cpu"),
        )
        return loaders.train

    varied = [Flip(), Brightness(0.2, p=1), Contrast(0.2, p=1), Saturation(0.2, p=1)]
    whole = build([*varied, Normalize.from_stats(MEAN, STD)])
    items = build([])
    items.after_batch.fs.clear()  # what is left makes floats of bytes
    return {
        "fastai": lambda: sum(len(images) for images, _ in whole),
        "fastai without batch transforms": lambda: sum(len(images) for images, _ in items),
    }


def our_epochs(index: ImageIndex, folder: Path) -> dict[str, Epoch]:
    """Return epochs of our loader for each level of augmentation, with the normalisation of the model."""
    epochs = {}
    for level in LEVELS:
        epochs[f"ours, {level}"] = train_epoch(training_images(index, level))
    for level in LEVELS:
        images = training_images(index, level)
        started = time.perf_counter()
        images.decoded = decode_once(images, DecodedStore(folder / level, 10**11))
        each = (time.perf_counter() - started) / len(images) * 1000
        print(
            f"decoding for {level}: {each:.2f} ms an image, {images.decoded.bytes / len(images):,.0f} bytes"
        )
        epochs[f"ours, {level}, decoded once"] = train_epoch(images)
    return epochs


def training_images(index: ImageIndex, level: Augment) -> TrainImages:
    """Return the training images with an augmentation."""
    return TrainImages(index, ImageLimits(), train_transform(level, PREPROCESSING))


def decode_once(images: TrainImages, store: DecodedStore) -> DecodedImages:
    """Decode all images, as `data.cache: disk` does."""
    assert images.index.root is not None
    decoded = DecodedImages(images.index.root, images.samples)
    assert decode_missing(images, decoded, lambda block: store.write("all", block, ""), Bar())
    assert decoded.count == len(images)
    return decoded


def train_epoch(images: TrainImages) -> Epoch:
    """Return an epoch of training images."""
    loader = build_train_loader(images, batch_size=BATCH, seed=0)
    epoch = iter(range(1_000_000))

    def load() -> int:
        loader.sampler.start_epoch(0, next(epoch))  # type: ignore[attr-defined]
        return count_normalised(loader)

    return load


def count_normalised(batches: Iterable[tuple[torch.Tensor, ...]]) -> int:
    """Normalise batches as the model does, and count their images."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    number = 0
    for images, *_ in batches:
        ready = (images.to(torch.float32) / 255 - mean) / std
        number += len(ready.contiguous(memory_format=torch.channels_last))
    return number


def measure(epochs: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Let the loaders take turns; return the milliseconds for an image of each round."""
    taken: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            started = time.perf_counter()
            images = epoch()
            taken[name].append((time.perf_counter() - started) / images * 1000)
    return taken


def print_table(taken: dict[str, list[float]]) -> None:
    """Print the speed of each loader, and by how much it is faster than fastai's."""
    for name, times in taken.items():
        ratios = [slow / fast for slow, fast in zip(taken["fastai"], times, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        each = statistics.median(times)
        print(
            f"  {name:<32} {each:5.2f} ms, {1000 / each:5.0f} images/s, "
            f"{middle:5.2f} ({low:.2f} – {high:.2f}) times fastai"
        )


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as decoded:
        index = draw_folder(Path(name), arguments.images)
        time.sleep(2 * SETTLED / 1e9)  # files that have just changed are not kept
        epochs = fastai_epochs(Path(name)) | our_epochs(index, Path(decoded))
        measure(epochs, 1)  # the first pass reads the files, and starts what starts once
        print(f"{arguments.images:,} JPEGs of 500 × 375, load {os.getloadavg()[0]:.1f}")
        print_table(measure(epochs, arguments.rounds))


if __name__ == "__main__":
    main()
