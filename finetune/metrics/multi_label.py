"""Scores of a classifier that may give an image several classes, or none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from finetune.metrics.ranking import average_precisions, best_thresholds, mean_over_present


@dataclass(frozen=True)
class LabelScores:
    """How one class fared. Precision, recall and F1 are 0 where they are not defined, as in scikit-learn."""

    name: str
    average_precision: float | None
    """None without an image that has the class"""
    threshold: float
    """Probability from which on the class is given."""
    precision: float
    recall: float
    f1: float
    support: int
    """Number of images that have this class."""


@dataclass(frozen=True)
class MultiLabelScores:
    """The outcome of a classifier on a set of images that may have several classes each.

    `map`, `macro_f1` and `balanced_accuracy` are means over the classes that some image has.
    """

    loss: float
    """Mean binary cross-entropy over images and classes, in nats."""
    map: float
    """Mean average precision, 0–1: how well each class ranks the images, whatever the thresholds."""
    accuracy: float
    """Subset accuracy: share of images for which exactly the right classes are given, 0–1."""
    balanced_accuracy: float
    """Mean over the classes of the mean of recall and specificity, 0–1."""
    macro_f1: float
    """Mean of the classes' F1, 0–1."""
    micro_f1: float
    """F1 of all decisions, whatever the class, 0–1."""
    per_class: tuple[LabelScores, ...]
    class_names: tuple[str, ...]
    images: int

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the probability from which on each class is given."""
        return tuple(row.threshold for row in self.per_class)

    def to_dict(self) -> dict[str, object]:
        """Return the scores as the JSON that `evaluate --json` and `report.json` document."""
        return asdict(self)


def multi_label_scores_from_dict(values: Mapping[str, Any]) -> MultiLabelScores:
    """Return the scores that `MultiLabelScores.to_dict` wrote, from JSON."""
    per_class = tuple(LabelScores(**of_class) for of_class in values["per_class"])
    return MultiLabelScores(**{**values, "per_class": per_class, "class_names": tuple(values["class_names"])})


def score_multi_label(
    logits: Tensor, targets: Tensor, class_names: tuple[str, ...], thresholds: Sequence[float] | None = None
) -> MultiLabelScores:
    """Compute every score from `logits` (N, C) and `targets` (N, C) of 0 and 1, both on the CPU, N ≥ 1.

    `thresholds` are those of a trained model; None chooses them on these images.
    """
    probabilities = label_probabilities(logits)
    if thresholds is None:
        chosen = best_thresholds(probabilities, targets)
    else:
        chosen = torch.tensor(thresholds, dtype=torch.float64)
    precisions = average_precisions(probabilities, targets)
    given, actual = probabilities >= chosen, targets.bool()
    hits, support, predicted = (given & actual).sum(0), actual.sum(0), given.sum(0)
    f1 = _f1(hits, support, predicted)
    recall = hits.double() / support.clamp(min=1)
    without = len(logits) - support
    specificity = (without - (predicted - hits)).double() / without.clamp(min=1)
    balanced = torch.where(without > 0, (recall + specificity) / 2, recall)
    columns = (
        [None if value != value else value for value in precisions.tolist()],
        chosen.tolist(),
        (hits.double() / predicted.clamp(min=1)).tolist(),
        recall.tolist(),
        f1.tolist(),
        support.tolist(),
    )
    return MultiLabelScores(
        loss=float(label_losses(logits, targets).mean()),
        map=mean_over_present(precisions, support > 0),
        accuracy=_subset_accuracy(given, actual),
        balanced_accuracy=mean_over_present(balanced, support > 0),
        macro_f1=mean_over_present(f1, support > 0),
        micro_f1=float(_f1(hits.sum(), support.sum(), predicted.sum())),
        per_class=tuple(LabelScores(name, *row) for name, *row in zip(class_names, *columns, strict=True)),
        class_names=class_names,
        images=len(logits),
    )


def label_probabilities(logits: Tensor) -> Tensor:
    """Return the probability of each class on its own, (N, C) in float64."""
    return logits.double().sigmoid()


def label_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of each image (N,): mean over the classes, in nats."""
    losses = functional.binary_cross_entropy_with_logits(logits.double(), targets.double(), reduction="none")
    return losses.mean(1)


def label_accuracy(logits: Tensor, targets: Tensor) -> float:
    """Return the subset accuracy at the thresholds that are best for these images."""
    probabilities = label_probabilities(logits)
    return _subset_accuracy(probabilities >= best_thresholds(probabilities, targets), targets.bool())


def _subset_accuracy(given: Tensor, actual: Tensor) -> float:
    return float((given == actual).all(1).double().mean())


def _f1(hits: Tensor, support: Tensor, predicted: Tensor) -> Tensor:
    return 2 * hits.double() / (support + predicted).clamp(min=1)
