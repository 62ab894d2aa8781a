"""Measure how fast images come to a network, per core, beside fastai's own loader.

    python benchmarks/input.py                       # two minutes
    python benchmarks/input.py --images 1000 --rounds 9
    python benchmarks/input.py --augment-on          # data.augment_on: cpu beside device, on this CPU

JPEGs of 500 × 375 are drawn in two class folders. Each loader gives an epoch of normalised float32 batches of
64 at 224 px, on one thread and without workers; fastai's and ours take turns, each in a process of its own
that is set up as its users would have it. fastai's is `ImageDataLoaders` with the nearest to our `standard`:
RandomResizedCrop(min_scale=0.35), mirroring, brightness, contrast and saturation by 0.2, the last four for a
batch at a time, as fastai has them. `to a GPU` is what is left for the CPU where there is one: bytes, for
which fastai does these and the normalisation on the GPU, we the normalisation.

`decoded once` is ours from the second pass on, with `data.cache`: what an epoch costs that finds the images
decoded, in files that the system holds in memory.

With `--augment-on` nothing of fastai's is loaded: images that are decoded once are varied one by one, and by
the half that a GPU would do, here on one thread of the CPU; `collected` is what is left for a core beside a
GPU. Bytes, without the normalisation.

What is printed is the median of the rounds, and the median of their ratios to fastai's with quartiles,
because a machine's speed is noisy.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import draw_photo

from finetune.choices import Augment
from finetune.data.image_files import SETTLED
from finetune.data.images import ImageLimits
from finetune.data.index import ImageIndex, Sample
from finetune.data.loading.dataset import TrainImages, collate
from finetune.data.loading.decode_once import decode_missing
from finetune.data.loading.decoded import DecodedImages
from finetune.data.loading.decoded_store import DecodedStore
from finetune.data.loading.draws import device_transform
from finetune.data.loading.loaders import build_train_loader
from finetune.data.loading.sampler import EpochSampler
from finetune.data.loading.transforms import train_transform
from finetune.machine.device import keep_large_buffers
from finetune.model.normalise import normalise_bytes
from finetune.model.preprocessing import Preprocessing
from finetune.progress import Bar

BATCH, SIZE = 64, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = Preprocessing(SIZE, 256, MEAN, STD, "bilinear")
DRAWN = 60  # different pictures; all others are these, at other qualities
LEVELS: tuple[Augment, ...] = ("none", "light", "standard", "strong")

FASTAI, FASTAI_TO_GPU = "fastai", "fastai, to a GPU"

Epoch = Callable[[], int]
"""loads all images once, and returns their number"""


def draw_folder(folder: Path, images: int) -> None:
    """Write the JPEGs of two classes."""
    generator = np.random.default_rng(0)
    photos = [draw_photo(generator) for _ in range(min(DRAWN, images))]
    for number in range(images):
        path = folder / name_of(number)
        path.parent.mkdir(exist_ok=True)
        photos[number % len(photos)].save(path, quality=88 + number // DRAWN % 5)


def name_of(number: int) -> str:
    """Return the path of an image."""
    return f"{'ab'[number % 2]}/{number:06}.jpg"


def fastai_epochs(folder: Path, images: int) -> dict[str, Epoch]:
    """Return epochs of fastai's loader, as its users make it: whole, and before its batch transforms."""
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
        FASTAI: lambda: sum(len(batch) for batch, _ in whole),
        FASTAI_TO_GPU: lambda: sum(len(batch) for batch, _ in items),
    }


def our_epochs(folder: Path, images: int) -> dict[str, Epoch]:
    """Return epochs of our loader for each level of augmentation, decoding in each, and decoded once."""
    keep_large_buffers()
    samples = tuple(Sample(name_of(number), (number % 2,), "train") for number in range(images))
    index, epochs = ImageIndex(folder, ("a", "b"), samples), {}
    for level in LEVELS:
        epochs[f"ours, {level}"] = train_epoch(training_images(index, level))
    for level in LEVELS:
        decoded = training_images(index, level)
        decoded.decoded = decode_once(decoded, DecodedStore(folder.parent / "decoded" / level, 10**11))
        epochs[f"ours, {level}, decoded once"] = train_epoch(decoded)
        if level == "standard":
            epochs["ours, standard, decoded once, to a GPU"] = train_epoch(decoded, normalise=False)
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


def augment_on_epochs(folder: Path, images: int) -> dict[str, Epoch]:
    """Return epochs of images that are decoded once, varied by either half's owner, or collected for it."""
    keep_large_buffers()
    samples = tuple(Sample(name_of(number), (number % 2,), "train") for number in range(images))
    index, epochs = ImageIndex(folder, ("a", "b"), samples), {}
    levels: tuple[Augment, ...] = ("light", "standard")
    for level in levels:
        whole = training_images(index, level)
        whole.decoded = decode_once(whole, DecodedStore(folder.parent / "decoded" / level, 10**11))
        halves = TrainImages(index, ImageLimits(), device_transform(level, PREPROCESSING))
        halves.decoded = whole.decoded
        epochs[f"{level}, augment_on: cpu"] = train_epoch(whole, normalise=False)
        epochs[f"{level}, augment_on: device"] = train_epoch(halves, normalise=False)
        epochs[f"{level}, collected for a device"] = collecting_epoch(halves)
    return epochs


def collecting_epoch(images: TrainImages) -> Epoch:
    """Return an epoch of training images that are drawn for and put together, and not varied."""
    sampler, epoch = EpochSampler(len(images), BATCH, seed=0), iter(range(1_000_000))

    def load() -> int:
        sampler.start_epoch(0, next(epoch))
        keys = list(sampler)[: len(images) // BATCH * BATCH]
        for start in range(0, len(keys), BATCH):
            collate([images[key] for key in keys[start : start + BATCH]])
        return len(keys)

    return load


def train_epoch(images: TrainImages, *, normalise: bool = True) -> Epoch:
    """Return an epoch of training images, normalised as the model does."""
    loader = build_train_loader(images, batch_size=BATCH, seed=0)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    epoch = iter(range(1_000_000))

    def load() -> int:
        loader.sampler.start_epoch(0, next(epoch))  # type: ignore[attr-defined]
        number = 0
        for batch, *_ in loader:
            ready = normalise_bytes(batch, mean, std, channels_last=True) if normalise else batch
            number += len(ready)
        return number

    return load


class Side:
    """A process that loads epochs when it is asked to."""

    def __init__(self, build: Callable[[Path, int], dict[str, Epoch]], folder: Path, images: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, build, folder, images), daemon=True)
        self._process.start()
        self.names: list[str] = self._connection.recv()

    def load(self, name: str) -> float:
        """Return the milliseconds that an image of an epoch takes."""
        self._connection.send(name)
        milliseconds: float = self._connection.recv()
        return milliseconds

    def stop(self) -> None:
        """End the process."""
        self._connection.send(None)
        self._process.join()


def serve(
    connection: "Connection[object, str | None]",
    build: Callable[[Path, int], dict[str, Epoch]],
    folder: Path,
    images: int,
) -> None:
    """Load each epoch that is asked for, and say how long it took."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    epochs = build(folder, images)
    connection.send(list(epochs))
    while (name := connection.recv()) is not None:
        started = time.perf_counter()
        number = epochs[name]()
        connection.send((time.perf_counter() - started) / number * 1000)


def measure(sides: list[Side], rounds: int) -> dict[str, list[float]]:
    """Let the loaders take turns; return the milliseconds for an image of each round."""
    taken: dict[str, list[float]] = {name: [] for side in sides for name in side.names}
    for _ in range(rounds):
        for side in sides:
            for name in side.names:
                taken[name].append(side.load(name))
    return taken


def print_speeds(taken: dict[str, list[float]]) -> None:
    """Print the speed of each loader."""
    for name, times in taken.items():
        each = statistics.median(times)
        print(f"  {name:<38} {each:5.2f} ms, {1000 / each:5.0f} images/s")


def print_table(taken: dict[str, list[float]]) -> None:
    """Print the speed of each loader, and by how much it is faster than fastai's."""
    for name, times in taken.items():
        beside = FASTAI_TO_GPU if name.endswith("to a GPU") else FASTAI
        ratios = [slow / fast for slow, fast in zip(taken[beside], times, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        each = statistics.median(times)
        print(
            f"  {name:<38} {each:5.2f} ms, {1000 / each:5.0f} images/s, "
            f"{middle:5.2f} ({low:.2f} – {high:.2f}) times {beside}"
        )


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--augment-on", action="store_true")
    arguments = parser.parse_args()
    builders = [augment_on_epochs] if arguments.augment_on else [fastai_epochs, our_epochs]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        draw_folder(folder, arguments.images)
        time.sleep(2 * SETTLED / 1e9)  # files that have just changed are not kept
        sides = [Side(build, folder, arguments.images) for build in builders]
        measure(sides, 1)  # the first pass reads the files, and starts what starts once
        print(f"{arguments.images:,} JPEGs of 500 × 375, load {os.getloadavg()[0]:.1f}")
        (print_speeds if arguments.augment_on else print_table)(measure(sides, arguments.rounds))
        for side in sides:
            side.stop()


if __name__ == "__main__":
    main()
