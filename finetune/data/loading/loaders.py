"""Batches of uint8 images (N, 3, H, W) and targets (N, …), the same ones with any number of workers.

The sampler draws order and augmentation seeds in the main process, from (seed, stage, epoch, position), and
the data sets hold nothing that changes. So neither workers nor skipped batches can change what a batch holds.
"""

import atexit
import re
import signal
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from finetune.choices import Split
from finetune.data.images import ImageError, ImageLimits
from finetune.data.index import ImageIndex, load_sample
from finetune.data.loading.sampler import EpochSampler, TrainKey, balanced_order
from finetune.data.loading.transforms import Transform
from finetune.errors import DataError, ResourceError
from finetune.machine.cores import usable_cores
from finetune.machine.signals import ASKING
from finetune.text import printable

WORKER_TIMEOUT = 300
"""seconds without an answer after which a worker is taken for stuck"""

_MOST_WORKERS = 8
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid.*(is killed|exited unexpectedly)")
_LOADERS: "weakref.WeakSet[ImageLoader]" = weakref.WeakSet()
_WORTH_WORKERS = 200  # images; fewer are read before the processes have started


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

    image: Tensor
    """(3, H, W), uint8"""
    facts: tuple[list[int], list[float]] | None
    """what is beside it: K categories and 2M numbers; None where there is no metadata"""
    target: Target


class TrainImages(Dataset[Item | Unreadable]):
    """The training images, augmented as the seed in the key says."""

    def __init__(self, index: ImageIndex, limits: ImageLimits, transform: Transform) -> None:
        self.index, self.limits, self.transform = index, limits, transform
        self.samples = index.of_split("train")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: TrainKey) -> Item | Unreadable:
        # Not `torch.manual_seed` in `fork_rng`: that also reseeds every GPU, and takes 90 times as long.
        state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(key.seed)
        try:
            return _load(self, key.position)
        finally:
            torch.default_generator.set_state(state)


class EvalImages(Dataset[Item | Unreadable]):
    """The images of a split, in order."""

    def __init__(self, index: ImageIndex, limits: ImageLimits, transform: Transform, *, split: Split) -> None:
        self.index, self.limits, self.transform = index, limits, transform
        self.samples = index.of_split(split)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Item | Unreadable:
        return _load(self, position)


class ImageLoader(DataLoader[tuple[Tensor, ...]]):
    """torch's loader, with the failures of its workers told as ours."""

    def stop_workers(self) -> None:
        """Stop the processes at once, whatever they are doing."""
        for worker in getattr(self._iterator, "_workers", ()):
            worker.kill()

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:  # type: ignore[override]
        """Return batches of images (N, 3, H, W), metadata where there is any, and targets.

        Metadata is categories (N, K), int64, and numbers (N, 2M), float32, as `Metadata.encode` gives them.
        Targets are classes (N,), or where an image may have several 0 and 1 in float32 (N, C).

        Raises:
            DataError: an image cannot be read, though the scan could.
            ResourceError: a worker was killed or is stuck.
        """
        try:
            for batch in super().__iter__():
                if isinstance(batch, Unreadable):
                    raise DataError(
                        f"{printable(batch.name)}: {batch.reason}; it has changed since the scan."
                    )
                yield batch
        except RuntimeError as error:
            failure = worker_failure(error)
            if failure is None:
                raise
            raise failure from error


def build_train_loader(
    index: ImageIndex,
    limits: ImageLimits,
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    workers: int = 0,
    pin_memory: bool = False,
    class_weights: Sequence[float] | None = None,
) -> ImageLoader:
    """Build the loader of the training images; call `loader.sampler.start_epoch` before each pass.

    A last batch that is not full is dropped: of one image, batch normalisation has no variance. With
    `class_weights`, how often images of each class are shown, an epoch is as long, and no longer holds every
    image once.

    Raises:
        DataError: fewer images than one batch, so that an epoch would have no step.
    """
    images = TrainImages(index, limits, transform)
    if len(images) < batch_size:
        raise DataError(f"{len(images)} training images are fewer than one batch of {batch_size}.")
    order = None
    if class_weights is not None:
        order = partial(balanced_order, [sample.target for sample in images.samples], class_weights)
    sampler = EpochSampler(len(images), batch_size, seed, order)
    return _build(images, sampler, batch_size=batch_size, workers=workers, pin_memory=pin_memory)


def build_eval_loader(
    index: ImageIndex,
    limits: ImageLimits,
    transform: Transform,
    *,
    split: Split = "val",
    batch_size: int = 64,
    workers: int = 0,
    pin_memory: bool = False,
) -> ImageLoader:
    """Build the loader of all images of a split, in the order of the index."""
    images = EvalImages(index, limits, transform, split=split)
    return _build(images, None, batch_size=batch_size, workers=workers, pin_memory=pin_memory)


def fit_batch_size(n_images: int, batch_size: int) -> int:
    """Return the batch size that leaves at least one step in an epoch.

    Raises:
        DataError: not even two images, which batch normalisation needs.
    """
    if n_images < 2:
        raise DataError(f"need at least 2 training images; there is {n_images}.")
    return min(batch_size, n_images)


def choose_workers(
    setting: int | Literal["auto"], n_images: int, *, device_type: str, cores: int | None = None
) -> int:
    """Decide how many processes load images.

    Args:
        setting: that many, or `auto`.
        n_images: images in a pass; 0 or few small ones are not worth a process.
        device_type: where the model computes; on `cpu` it needs the cores itself.
        cores: cores that this process may use; `None` asks the system.
    """
    if setting != "auto":
        return setting
    if cores is None:
        cores = usable_cores()
    if n_images < _WORTH_WORKERS or cores <= (2 if device_type == "cpu" else 1):
        return 0
    return min(cores - 1, _MOST_WORKERS)


def worker_failure(error: RuntimeError) -> ResourceError | None:
    """Translate torch's complaint about a worker, `None` if the error is about something else.

    torch raises it in the main process wherever that is when a worker dies, not only in the loader.
    """
    text = str(error)
    if "DataLoader timed out" in text:
        return ResourceError(
            f"no data worker answered for {WORKER_TIMEOUT} s: the storage may hang, or memory "
            "may have run out. Try again, with data.workers set lower."
        )
    if not _DEAD_WORKER.search(text):
        return None
    memory = "shared memory (/dev/shm)" if "shared memory" in text else "memory"
    return ResourceError(
        f"a data worker was killed, most likely for lack of {memory}; "
        "set data.workers or data.batch_size lower."
    )


def _load(images: TrainImages | EvalImages, position: int) -> Item | Unreadable:
    sample = images.samples[position]
    try:
        picture = load_sample(images.index, sample, images.limits, shrink_to=images.transform.shrink_to)
    except ImageError as error:
        return Unreadable(error.name, error.reason)
    metadata = images.index.metadata
    facts = None if metadata is None else metadata.encode(sample.metadata)
    with _one_thread():
        return Item(images.transform(picture), facts, images.index.target(sample))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as a worker does: the same sums in the same order.

    For a single image more threads only cost time, up to a thousand times more where other programs are busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _build(
    images: TrainImages | EvalImages,
    sampler: EpochSampler | None,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool,
) -> ImageLoader:
    loader = ImageLoader(
        images,  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=sampler,
        drop_last=sampler is not None,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        timeout=WORKER_TIMEOUT if workers else 0,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # torch would draw a seed for the workers from the global one
    )
    _LOADERS.add(loader)
    return loader


def end_workers(loader: DataLoader[tuple[Tensor, ...]]) -> None:
    """Let the processes of a loader that is not needed any more end by themselves."""
    loader._iterator = None


@atexit.register
def _stop_all_workers() -> None:
    """Stop the workers of loaders that an error has left behind.

    They ignore the signal with which multiprocessing would end them, and it would wait for them for ever.
    """
    if _LOADERS and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise an error for each that ends
    for loader in _LOADERS:
        loader.stop_workers()


def _collate(items: Sequence[Item | Unreadable]) -> tuple[Tensor, ...] | Unreadable:
    for item in items:
        if isinstance(item, Unreadable):
            return item
    images, facts, targets = zip(*items, strict=True)
    # In a worker this stacks straight into shared memory.
    return default_collate(list(images)), *stack_facts(facts), torch.tensor(targets)


def stack_facts(facts: Sequence[tuple[list[int], list[float]] | None]) -> tuple[Tensor, ...]:
    """Return categories (N, K), int64, and numbers (N, 2M), float32, of N images; or nothing."""
    told = [one for one in facts if one is not None]
    if not told:
        return ()
    categories, numbers = zip(*told, strict=True)
    return torch.tensor(categories, dtype=torch.int64), torch.tensor(numbers, dtype=torch.float32)


def _start_worker(worker: int) -> None:
    """Leave signals to the main process, which stops workers when it has saved."""
    torch.set_num_threads(1)
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)
