"""What a backbone makes of the images of an experiment, as evaluation shows them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from finetune.analysis.ridge import target_rows
from finetune.choices import Split
from finetune.data.index import Sample
from finetune.data.loading.dataset import EvalImages
from finetune.data.loading.loaders import ChosenImages
from finetune.data.loading.share import in_shares
from finetune.data.loading.transforms import eval_transform
from finetune.data.metadata import metadata_tensors
from finetune.experiment.build import Experiment, loader_workers
from finetune.experiment.stored_features import FileFeatures, file_features
from finetune.machine.divided import has_divided
from finetune.machine.ranks import Ranks
from finetune.model import ImageClassifier
from finetune.model.preprocessing import Preprocessing
from finetune.progress import Bar, NewBar, no_bar


@dataclass(frozen=True)
class ImageFeatures:
    """What a backbone makes of some images."""

    samples: tuple[Sample, ...]
    """The images, in the order of the index."""
    features: Tensor
    """(N, D), float32, on the CPU."""
    targets: Tensor
    """Classes (N,), or where an image may have several 0 and 1 (N, C)."""
    metadata: tuple[Tensor, ...] = ()
    """What a head takes beside the features."""
    reused: int = 0
    """How many images have features that an earlier run computed."""

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """What a batch of features holds: features, what else a head takes, and targets."""
        return (self.features, *self.metadata, self.targets)

    def one_hot(self, classes: int) -> Tensor:
        """Return the targets as 0 and 1 (N, C), float32, of either kind."""
        return target_rows(self.targets, classes)


def image_features(experiment: Experiment, split: Split, new_bar: NewBar = no_bar) -> ImageFeatures:
    """Compute the features of the evaluation view of every image of a split, or find those of an earlier run.

    The head and metadata have no part in them. They are computed in batches, in the order of the index.

    Raises:
        DataError: an image cannot be read, though the scan could.
    """
    return evaluation_features(experiment, split, experiment.model.preprocessing, new_bar)


def evaluation_features(
    experiment: Experiment, split: Split, preprocessing: Preprocessing, new_bar: NewBar = no_bar
) -> ImageFeatures:
    """Compute features as `image_features` does, of images that are preprocessed in another way.

    Raises:
        DataError: as `image_features`.
    """
    index = experiment.index
    images = EvalImages(index, experiment.limits, eval_transform(preprocessing), split=split)
    sizes = batch_sizes(len(images), experiment.config.data.batch_size)
    ranks, stored = experiment.ranks, None
    # There is one store, which other machines may not see; whose weights these are only all ranks can tell.
    if ranks.is_first and not has_divided(experiment.model):
        stored = file_features(experiment, images.samples, preprocessing, sizes)
    known = _of_first(ranks, {} if stored is None else stored.known())
    reused, bar = len(known), partial(new_bar, f"features {split}", len(images))
    if not _compute_rest(experiment, images, known, stored, bar):
        reused = 0
        known.clear()
        _compute_rest(experiment, images, known, None, bar)
    return ImageFeatures(
        images.samples,
        torch.stack([known[position] for position in range(len(images))]),
        torch.tensor([index.target(sample) for sample in images.samples]),
        metadata_tensors(index.metadata, (sample.metadata for sample in images.samples)),
        reused,
    )


def _of_first(ranks: Ranks, known: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return the features (D,) by position that rank 0 knows."""
    if ranks.alone or not ranks.of_first(bool(known)):
        return known if ranks.is_first else {}
    positions, rows = ranks.of_first(
        (list(known), torch.stack(list(known.values())) if known else torch.empty(0))
    )
    return dict(zip(positions, rows, strict=True))


def batch_sizes(images: int, batch_size: int) -> list[int]:
    """Return for each image how many are computed in its batch: the last one may be smaller."""
    last = images % batch_size
    return [batch_size] * (images - last) + [last] * last


def left_to_compute(sizes: Sequence[int], known: Collection[int]) -> list[int]:
    """Return the positions to compute, so that each missing one is in a batch of its size.

    Where the last of the full batches would not be full, images that are known fill it up.
    """
    full = [position for position, size in enumerate(sizes) if size == sizes[0]]
    missing = [position for position in full if position not in known]
    spare = [position for position in full if position in known]
    missing += spare[: -len(missing) % sizes[0]] if sizes else []
    last = list(range(len(full), len(sizes)))
    return missing + (last if any(position not in known for position in last) else [])


def _compute_rest(
    experiment: Experiment,
    images: EvalImages,
    known: dict[int, Tensor],
    stored: FileFeatures | None,
    new_bar: Callable[[], AbstractContextManager[Bar]],
) -> bool:
    """Compute the features that are not known; false if those that are known are of no use.

    That is where the features of an image depend on its place in a batch: such are not stored either.
    """
    batch_size, reused = experiment.config.data.batch_size, bool(known)
    left = left_to_compute(batch_sizes(len(images), batch_size), known)
    looks = experiment.ranks.of_first(stored is not None)
    compute = partial(_features_of, experiment, images, batch_size, looks=looks)
    with new_bar() as bar, _evaluating(experiment.model), _saved_at_the_end(stored):
        bar.advance_by(len(images) - len(left))
        for features, stands_alone in in_shares(left, batch_size, experiment.ranks, compute):
            positions, left = left[: len(features)], left[len(features) :]
            if bool(stands_alone.all()):
                if stored is not None:
                    stored.add(positions, features)
            elif reused:
                return False
            known |= zip(positions, features.cpu(), strict=True)
            bar.advance_by(len(positions))
    return True


def _features_of(
    experiment: Experiment, images: EvalImages, batch_size: int, positions: Sequence[int], *, looks: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Compute the features (N, D) of batches, and whether each image has the same in another place (N,).

    That is looked at once for each size of a batch, and not at all where nothing `looks` for it.
    """
    stands_alone = dict[int, bool]()
    for pixels in _pixels(experiment, images, positions, batch_size):
        with torch.no_grad():
            features = experiment.model.features(pixels)
        if len(pixels) not in stands_alone:
            stands_alone[len(pixels)] = not looks or _rows_stand_alone(experiment.model, pixels, features)
        yield features, torch.full((len(pixels),), float(stands_alone[len(pixels)]), device=features.device)


def _pixels(
    experiment: Experiment, images: EvalImages, positions: Sequence[int], batch_size: int
) -> Iterator[Tensor]:
    """Return images (N, 3, H, W) in batches, on the device."""
    if not positions:
        return
    load = ChosenImages(
        images,
        batch_size=batch_size,
        workers=loader_workers(experiment),
        device=experiment.device,
    )
    for pixels, *_ in load(positions):
        yield pixels
    load.end_workers()  # not after an error: what stops them at exit has to find them


def _rows_stand_alone(model: ImageClassifier, pixels: Tensor, features: Tensor) -> bool:
    """Tell whether images have the same features, to the last bit, in another place of their batch.

    They have with every network and processor that was tried, but nobody promises it.
    """
    with torch.no_grad():
        moved = model.features(pixels.roll(1, dims=0)).roll(-1, dims=0)
    return torch.equal(moved, features)


@contextmanager
def _saved_at_the_end(stored: FileFeatures | None) -> Iterator[None]:
    """Write what was computed, also if an image cannot be read or the user interrupts."""
    try:
        yield
    finally:
        if stored is not None:
            stored.save()


@contextmanager
def _evaluating(model: ImageClassifier) -> Iterator[None]:
    """Compute as evaluation does, and leave the model in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
