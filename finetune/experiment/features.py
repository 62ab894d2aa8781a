"""Decide whether a stage trains on cached features, and load them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from finetune.config.sections import StageConfig
from finetune.data.loading.dataset import TrainImages
from finetune.data.loading.loaders import ChosenImages
from finetune.data.metadata import stack_metadata
from finetune.experiment.build import Experiment
from finetune.experiment.loaders import loader_workers
from finetune.notes import Note
from finetune.text import counted
from finetune.training.events import Loaders
from finetune.training.feature_views import FeatureViews, RepeatedBatches, Source

_MOST_BYTES = 2 << 30  # of features that `auto` keeps in memory


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
        yield Note("features: those of the validation images are computed once")


def view_count(stage: StageConfig) -> int:
    """Return how many views of each image a stage shows."""
    if stage.views == "eval":
        return 1
    return stage.epochs if stage.views is None else min(stage.views, stage.epochs)


@contextmanager
def stage_loaders(experiment: Experiment, stage: StageConfig, loaders: Loaders) -> Iterator[Loaders]:
    """Provide the loaders that a stage trains with: those of the images, or loaders of their features.

    Before the first batch is taken the model has to be frozen. What a search for the stage's rate computes of
    its first epoch, the stage need not. Processes that load images for their features end with the stage.
    """
    if not caches_features(experiment, stage):
        yield loaders
        return
    model, data, index = experiment.model, experiment.config.data, experiment.index
    images = loaders.train.dataset
    assert isinstance(images, TrainImages)
    rows = [None if index.metadata is None else index.metadata.encode(s.metadata) for s in images.samples]
    read = ChosenImages(
        images,
        batch_size=data.images_per_step,
        workers=loader_workers(experiment),
        pin_memory=experiment.device.type == "cuda",
    )
    source = Source(
        order=loaders.train.sampler,
        read=read,
        others=(*stack_metadata(rows), torch.tensor([index.target(sample) for sample in images.samples])),
        extract=partial(_in_chunks, model.features, data.batch_size),
        device=experiment.device,
    )
    train = FeatureViews(
        source, batch_size=data.images_per_step, views=view_count(stage), epochs=stage.epochs
    )
    val = RepeatedBatches(loaders.val, model.features, experiment.device)
    yield Loaders(train, val, loaders.device)
    read.end_workers()  # not after an error: what stops them at exit has to find them


def _in_chunks(extract: Callable[[Tensor], Tensor], size: int, images: Tensor) -> Tensor:
    """Compute features by as many images as the training computes at once."""
    return torch.cat([extract(chunk) for chunk in torch.split(images, size)])


def _bytes(experiment: Experiment, stage: StageConfig) -> int:
    """Return the size of the features that a stage keeps."""
    index, views = experiment.index, view_count(stage)
    kept = views if views < stage.epochs else 1  # the first is kept until the second begins
    images = index.count("val") + index.count("train") * kept
    return 4 * experiment.model.head.feature_width * images
