"""How well a backbone tells classes apart before anything is trained, and what it costs."""

import statistics
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finetune.analysis.ridge import fit_ridge, target_rows
from finetune.analysis.uncertainty import pseudo_values, standard_error
from finetune.config.config import Config
from finetune.data.index import ImageIndex
from finetune.experiment.build import Experiment
from finetune.experiment.image_features import image_features
from finetune.experiment.read_data import resolve_auto, resolved_monitor
from finetune.metrics.monitor import SCORES
from finetune.progress import NewBar, no_bar

MOST_IMAGES = 10_000
"""That are looked at of a split: with more, the standard error is smaller than what any of this can tell."""

_LONG_ENOUGH = 1.0  # seconds of forward passes after which their time is known well enough
_MOST_PASSES = 5


@dataclass(frozen=True)
class BackboneScore:
    """What a backbone is worth for some images, and what it costs."""

    arch: str
    weights: str
    """as `model.weights` has it"""
    image_size: int
    """side of the images in pixels"""
    score: float
    """of a ridge regression from its features, 0–1"""
    per_image: Tensor
    """numbers (N,) of images, or of groups of images, whose mean is the score; see `analysis.uncertainty`"""
    images_per_second: float
    """of the forward pass on this device, in batches of the config's size, without reading the images"""
    parameters: int
    """of the backbone, without its own classifier and without the new head"""
    megabytes: float
    """of the backbone in float32, with what batch norm has counted"""

    @property
    def standard_error(self) -> float:
        """The standard error of the score over images."""
        return standard_error(self.per_image)


def score_name(config: Config, index: ImageIndex) -> str:
    """Return the score that a config chooses its best epoch by, without `val_`.

    A ridge regression has no cross-entropy: in the place of the loss stands what the task would choose.
    """
    monitor = resolved_monitor(resolve_auto(config, index))
    return (monitor if monitor in SCORES else index.task.default_monitor).removeprefix("val_")


def score_backbone(
    experiment: Experiment, *, score: str, on_val: bool, new_bar: NewBar = no_bar
) -> BackboneScore:
    """Score the backbone of an experiment by a ridge regression from features to classes.

    Args:
        experiment: with the backbone; its head and metadata have no part in it.
        score: which one, as `score_name` gives it.
        on_val: judge on the validation images by a fit to the training images; else on all of both, each by
            a fit to all others.
        new_bar: starts a bar for the features.
    """
    index = experiment.index.thinned("train", MOST_IMAGES).thinned("val", MOST_IMAGES)
    thinned = replace(experiment, index=index)
    train, val = (image_features(thinned, split, new_bar) for split in ("train", "val"))
    classes = len(index.class_names)
    if on_val:
        values = fit_ridge(train.features, train.one_hot(classes)).predict(val.features)
        targets = val.targets
    else:
        features, targets = torch.cat([train.features, val.features]), torch.cat([train.targets, val.targets])
        values = fit_ridge(features, target_rows(targets, classes)).left_out
    whole, per_image = judge(index, values, targets, score)
    backbone, config = experiment.model.backbone, experiment.config
    tensors = [*backbone.parameters(), *backbone.buffers()]
    return BackboneScore(
        arch=config.model.arch,
        weights=config.model.weights,
        image_size=experiment.model.preprocessing.image_size,
        score=whole,
        per_image=per_image,
        images_per_second=forward_speed(experiment),
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        megabytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6,
    )


def judge(index: ImageIndex, values: Tensor, targets: Tensor, score: str) -> tuple[float, Tensor]:
    """Return a score of fitted values (N, C), and the numbers whose mean it is."""
    if score == "accuracy" and targets.ndim == 1:
        right = (values.argmax(1) == targets).double()
        return float(right.mean()), right

    def of(positions: Tensor) -> float:
        scores = index.task.score(values[positions], targets[positions], index.class_names)
        return float(getattr(scores, score))

    return of(torch.arange(len(values))), pseudo_values(of, len(values))


def forward_speed(experiment: Experiment) -> float:
    """Measure how many images the backbone turns into features in a second."""
    model, size = experiment.model.eval(), experiment.model.preprocessing.image_size
    batch = min(experiment.config.data.batch_size, experiment.index.count("train"))
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    times: list[float] = []
    while len(times) <= _MOST_PASSES and sum(times[1:]) < _LONG_ENOUGH:
        started = time.perf_counter()
        with torch.no_grad():
            model.features(images.to(experiment.device)).cpu()
        times.append(time.perf_counter() - started)
    return batch / statistics.median(times[1:] or times)  # the first also allocates
