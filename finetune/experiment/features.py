"""Decide whether a stage trains on cached features, and load them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from finetune.analysis.ridge import solve_ridge, target_rows
from finetune.config.sections import StageConfig
from finetune.data.loading.dataset import TrainImages
from finetune.data.loading.loaders import ChosenImages
from finetune.data.metadata import metadata_tensors
from finetune.experiment.build import Experiment, freeze_for_stage, loader_workers
from finetune.experiment.image_features import ImageFeatures, evaluation_features, image_features
from finetune.experiment.loaders import image_size_of
from finetune.machine.divided import has_divided
from finetune.metrics.score import Scores
from finetune.notes import Note
from finetune.progress import NewBar, no_bar
from finetune.text import counted
from finetune.training.events import Batches, Loaders
from finetune.training.feature_views import FeatureViews, FixedView, Source
from finetune.training.features import Features

_MOST_BYTES = 2 << 30  # of features that `auto` keeps in memory
_MOST_FITTED = 10_000  # images that the first score is fitted to: more take seconds and change little


def caches_features(experiment: Experiment, stage: StageConfig) -> bool:
    """Tell whether a stage trains on cached features."""
    if stage.features != "auto":
        return stage.features == "cached"
    return views_have_features(experiment, stage) and _bytes(experiment, stage) <= _MOST_BYTES


def views_have_features(experiment: Experiment, stage: StageConfig) -> bool:
    """Tell whether what the backbone makes of a view is the same throughout a stage.

    The features of mixed images are no mixture of those of the images, and new each time.
    """
    return stage.only_head_learns and not experiment.config.data.mixes


def feature_notes(experiment: Experiment, stage: StageConfig) -> Iterator[Note]:
    """Say what a stage that trains on cached features computes, and what it saves."""
    views = view_count(stage)
    if not caches_features(experiment, stage) or stage.epochs == 1:
        return
    what = "the evaluation view" if stage.views == "eval" else counted(views, "view")
    if views < stage.epochs:
        yield Note(
            f"features: {what} of each image; after {counted(views, 'epoch')} only the head is computed"
        )
    else:
        yield Note(
            f"features: the backbone sees validation images once, not in each of {stage.epochs:,} epochs"
        )


def view_count(stage: StageConfig) -> int:
    """Return how many views of each image a stage shows."""
    if stage.views == "eval":
        return 1
    return stage.epochs if stage.views is None else min(stage.views, stage.epochs)


@contextmanager
def stage_loaders(
    experiment: Experiment, stage: StageConfig, loaders: Loaders, new_bar: NewBar = no_bar
) -> Iterator[tuple[Loaders, list[Note]]]:
    """Provide the loaders that a stage trains with: those of the images, or loaders of their features.

    The features of evaluation views are computed now, or found where an earlier run has stored them, as the
    notes say. Those of augmented views are computed when they are shown; before the first batch is taken the
    model has to be frozen. What a search for the stage's rate computes of its first epoch, the stage need
    not. Processes that load images for their features end with the stage.
    """
    if not caches_features(experiment, stage):
        yield loaders, []
        return
    data, val = experiment.config.data, image_features(experiment, "val", new_bar)
    split = (torch.split(part, data.batch_size) for part in _on_device(experiment, val))
    val_batches: Any = list(zip(*split, strict=True))
    if stage.views == "eval":
        train = train_features(experiment, stage, new_bar)
        order: Any = loaders.train.sampler
        view: Any = FixedView(order, _on_device(experiment, train), batch_size=data.images_per_step)
        yield replace(loaders, train=view, val=val_batches), reuse_notes([train, val])
        return
    read, views = _augmented_views(experiment, stage, loaders)
    yield replace(loaders, train=views, val=val_batches), reuse_notes([val])
    read.end_workers()  # not after an error: what stops them at exit has to find them


def train_features(experiment: Experiment, stage: StageConfig, new_bar: NewBar = no_bar) -> ImageFeatures:
    """Compute, or find, the features of the training images as a stage with `views: eval` shows them."""
    preprocessing = experiment.model.preprocessing.scaled_to(image_size_of(experiment, stage))
    return evaluation_features(experiment, "train", preprocessing, new_bar)


def shown_features(
    experiment: Experiment, stage: StageConfig, positions: Sequence[int], new_bar: NewBar = no_bar
) -> Features:
    """Return features as `train_features`, of some of the images in an order in which they may repeat.

    Where these are most of the images all are computed: in the batches of a training, which then finds them.
    """
    samples = experiment.index.of_split("train")
    names = {samples[position].name for position in positions}
    if 2 * len(names) < len(samples):
        kept = tuple(s for s in experiment.index.samples if s.split != "train" or s.name in names)
        experiment = replace(experiment, index=replace(experiment.index, samples=kept))
    found = train_features(experiment, stage, new_bar)
    rows = {sample.name: row for row, sample in enumerate(found.samples)}
    order = [rows[samples[position].name] for position in positions]
    return tuple(part[order].to(experiment.device) for part in found.parts)


def reuse_notes(found: Sequence[ImageFeatures]) -> list[Note]:
    """Say how many images have features in the store; nothing if none has."""
    reused, images = sum(one.reused for one in found), sum(len(one.samples) for one in found)
    text = f"features: those of {reused:,} of {images:,} images are in the cache"
    return [Note(text)] if reused else []


def _on_device(experiment: Experiment, found: ImageFeatures) -> tuple[Tensor, ...]:
    """Return what batches hold, the features where the head is."""
    return (found.features.to(experiment.device), *found.parts[1:])


def _augmented_views(
    experiment: Experiment, stage: StageConfig, loaders: Loaders
) -> tuple[ChosenImages, Any]:
    """Return what reads the images of a stage, and what loads the features of their views."""
    data, index, images = experiment.config.data, experiment.index, loaders.train.dataset
    assert isinstance(images, TrainImages)
    read = ChosenImages(
        images,
        batch_size=data.images_per_step,
        workers=loader_workers(experiment),
        device=experiment.device,
    )
    metadata = metadata_tensors(index.metadata, (sample.metadata for sample in images.samples))
    passes = data.accumulate if has_divided(experiment.model) else 1
    source = Source(
        order=loaders.train.sampler,
        read=read,
        others=(*metadata, torch.tensor([index.target(sample) for sample in images.samples])),
        extract=partial(_in_chunks, experiment.model.features, data.batch_size, at_least=passes),
        device=experiment.device,
        ranks=experiment.ranks,
    )
    views = FeatureViews(
        source, batch_size=data.images_per_step, views=view_count(stage), epochs=stage.epochs
    )
    return read, views


def first_scores(experiment: Experiment, number: int, loaders: Loaders, new_bar: NewBar) -> Scores:
    """Return what ridge regression on the features of a first pass makes of the validation images.

    Nothing has to be trained for it, and what it computes the stage need not compute again. Metadata has no
    part in it; its loss means nothing. `loaders` are those of `stage_loaders`.
    """
    index, images = experiment.index, experiment.config.data.images_per_step
    classes = len(index.class_names)
    freeze_for_stage(experiment.config.stages[number], experiment.model)
    experiment.model.train()  # what is frozen stays in eval mode
    with new_bar("features", len(loaders.train) * images + index.count("val")) as bar:
        loaders.train.sampler.start_epoch(number, 0)  # type: ignore[attr-defined]
        train, train_targets = _first_and_last(loaders.train, bar.advance_by)
        val, targets = _first_and_last(loaders.val, bar.advance_by)
    spread = torch.linspace(0, len(train) - 1, min(len(train), _MOST_FITTED)).long()
    fit = solve_ridge(train[spread], target_rows(train_targets[spread], classes))
    return index.task.score(fit.predict(val), targets, index.class_names)


def _first_and_last(batches: Batches, progress: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """Return the features (N, D) and the targets of all batches, on the CPU."""
    features, targets = [], []
    for first, *_, last in batches:
        features.append(first.cpu())
        targets.append(last.cpu())
        progress(len(first))
    return torch.cat(features), torch.cat(targets)


def _in_chunks(
    extract: Callable[[Tensor], Tensor], size: int, images: Tensor, *, at_least: int = 1
) -> Tensor:
    """Compute features by as many images as the training computes at once.

    Ranks that hold a part of the weights each call `extract` equally often, also where one has a smaller
    batch: what is computed once more is left out.
    """
    chunks = torch.split(images, size)
    found = [extract(chunk) for chunk in (*chunks, *[chunks[0]] * (at_least - len(chunks)))]
    return torch.cat(found[: len(chunks)])


def _bytes(experiment: Experiment, stage: StageConfig) -> int:
    """Return the size of the features that a stage keeps."""
    index, views = experiment.index, view_count(stage)
    kept = views if views < stage.epochs else 1  # the first is kept until the second begins
    images = index.count("val") + index.count("train") * kept
    return 4 * experiment.model.head.feature_width * images
