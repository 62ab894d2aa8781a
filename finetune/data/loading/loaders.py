"""Batches of uint8 images (N, 3, H, W) and targets (N, …), the same ones with any number of workers.

The sampler draws order and augmentation seeds in the main process, from (seed, stage, epoch, position).
"""

import atexit
import signal
import weakref
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from finetune.data.loading.dataset import EvalImages, TrainImages, Unreadable, collate
from finetune.data.loading.draws import DrawnBatch
from finetune.data.loading.sampler import EpochSampler, TrainKey, balanced_order
from finetune.data.loading.share import BatchShare, EvalShare
from finetune.data.loading.workers import WORKER_TIMEOUT, start_worker, worker_failure
from finetune.errors import DataError
from finetune.machine.ranks import ALONE, Ranks
from finetune.text import printable

_CPU = torch.device("cpu")
_LOADERS: "weakref.WeakSet[ImageLoader]" = weakref.WeakSet()


class ImageLoader(DataLoader[tuple[Tensor, ...]]):
    """torch's loader, to a device, with the failures of its workers reported as errors of ours."""

    device = _CPU
    """Where its batches go. A GPU takes them while it computes: nobody waits for the copy."""
    share: BatchShare | EvalShare | None = None
    """What this rank loads of the whole; None for all of it."""

    def stop_workers(self) -> None:
        """Stop the processes at once, whatever they are doing."""
        for worker in getattr(self._iterator, "_workers", ()):
            worker.kill()

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:  # type: ignore[override]
        """Return batches of images (N, 3, H, W), metadata where there is any, and targets, on the device.

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
                first, *others = (part.to(self.device, non_blocking=True) for part in batch)
                if isinstance(first, DrawnBatch):
                    first = self.dataset.transform.halves.finish(first)  # type: ignore[attr-defined]
                yield first, *others
        except RuntimeError as error:
            failure = worker_failure(error)
            if failure is None:
                raise
            raise failure from error


def build_train_loader(
    images: TrainImages,
    *,
    batch_size: int,
    seed: int,
    workers: int = 0,
    device: torch.device = _CPU,
    class_weights: Sequence[float] | None = None,
    share: BatchShare | None = None,
) -> ImageLoader:
    """Build the loader of the training images; call `loader.sampler.start_epoch` before each pass.

    A last batch that is not full is dropped: of one image, batch normalisation has no variance. With
    `class_weights`, how often images of each class are shown, an epoch is as long, and no longer holds every
    image once. With a `share` its rows of each batch are loaded.

    Raises:
        DataError: fewer images than one batch, so that an epoch would have no step.
    """
    if len(images) < batch_size:
        raise DataError(f"{len(images)} training images are fewer than one batch of {batch_size}.")
    order = None
    if class_weights is not None:
        order = partial(balanced_order, [sample.target for sample in images.samples], class_weights)
    rows = None if share is None else share.rows()
    sampler = EpochSampler(len(images), batch_size, seed, order, rows)
    own = batch_size if rows is None else len(rows)
    loader = _build(images, sampler, batch_size=own, workers=workers, device=device)
    loader.share = share
    return loader


def build_eval_loader(
    images: EvalImages,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device = _CPU,
    ranks: Ranks = ALONE,
) -> ImageLoader:
    """Build the loader of all images of a split, in the order of the index; each rank loads its batches."""
    if ranks.alone or not len(images):
        return _build(images, None, batch_size=batch_size, workers=workers, device=device)
    share = EvalShare(ranks, len(images), batch_size)
    chosen = _Chosen()
    chosen.keys = share.positions()
    loader = _build(images, chosen, batch_size=batch_size, workers=workers, device=device)
    loader.share = share
    return loader


class ChosenImages:
    """Loads batches of the images that a pass asks for."""

    def __init__(
        self,
        images: TrainImages | EvalImages,
        *,
        batch_size: int,
        workers: int = 0,
        device: torch.device = _CPU,
    ) -> None:
        self._chosen = _Chosen()
        self._loader = _build(images, self._chosen, batch_size=batch_size, workers=workers, device=device)

    def __call__(self, keys: Sequence[TrainKey] | Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        """Return batches of images and what belongs to them, in this order; the last may be smaller.

        The keys of training images hold the seed of their augmentation; others are positions alone.
        """
        self._chosen.keys = keys
        return iter(self._loader)

    def end_workers(self) -> None:
        """Let the processes that load the images end by themselves."""
        end_workers(self._loader)


class _Chosen(Sampler[TrainKey | int]):
    """What the next pass loads."""

    def __init__(self) -> None:
        self.keys: Sequence[TrainKey] | Sequence[int] = ()

    def __iter__(self) -> Iterator[TrainKey | int]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def fit_batch_size(n_images: int, batch_size: int) -> int:
    """Return the batch size that leaves at least one step in an epoch.

    Raises:
        DataError: not even two images, which batch normalisation needs.
    """
    if n_images < 2:
        raise DataError(f"need at least 2 training images; there is {n_images}.")
    return min(batch_size, n_images)


def _build(
    images: TrainImages | EvalImages,
    sampler: EpochSampler | _Chosen | None,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> ImageLoader:
    loader = ImageLoader(
        images,  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=sampler,
        drop_last=isinstance(sampler, EpochSampler),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",  # else a copy to a GPU waits
        timeout=WORKER_TIMEOUT if workers else 0,
        worker_init_fn=start_worker,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # torch would draw a seed for the workers from the global one
    )
    loader.device = device
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
