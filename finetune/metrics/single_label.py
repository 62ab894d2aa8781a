"""Scores of a classifier that gives each image one class."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from finetune.metrics.ranking import average_precisions, mean_over_present


@dataclass(frozen=True)
class ClassScores:
    """How one class fared. Precision, recall and F1 are 0 where they are not defined, as in scikit-learn."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Number of images of this class."""


@dataclass(frozen=True)
class SingleLabelScores:
    """The outcome of a classifier on a set of images."""

    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    """Share of images whose most probable class is the right one, 0–1."""
    map: float
    """Mean average precision of the classes that have images, 0–1: how well each ranks the images."""
    top_k: dict[int, float]
    """Share of images whose class is among the k most probable, for each k that says something."""
    per_class: tuple[ClassScores, ...]
    confusion_matrix: tuple[tuple[int, ...], ...]
    """Row: true class; column: predicted class; both in the order of `class_names`."""
    class_names: tuple[str, ...]
    images: int

    thresholds: ClassVar[None] = None
    """The most probable class is the answer, whatever its probability."""

    @property
    def balanced_accuracy(self) -> float:
        """Return the mean recall over the classes that have images, 0–1."""
        present = [scores.recall for scores in self.per_class if scores.support]
        return sum(present) / len(present)

    @property
    def macro_f1(self) -> float:
        """Return the mean F1 over the classes that have images, 0–1."""
        present = [scores.f1 for scores in self.per_class if scores.support]
        return sum(present) / len(present)

    @property
    def never_predicted(self) -> frozenset[str]:
        """Return the classes without a prediction, whose precision is 0 / 0."""
        columns = zip(*self.confusion_matrix, strict=True)
        pairs = zip(self.class_names, columns, strict=True)
        return frozenset(name for name, column in pairs if not any(column))

    def to_dict(self) -> dict[str, object]:
        """Return the scores as the JSON that `evaluate --json` and `report.json` document."""
        values = asdict(self) | {"balanced_accuracy": self.balanced_accuracy, "macro_f1": self.macro_f1}
        values["top_k"] = {str(k): share for k, share in self.top_k.items()}
        return values


def single_label_scores_from_dict(values: Mapping[str, Any]) -> SingleLabelScores:
    """Return the scores that `SingleLabelScores.to_dict` wrote, from JSON."""
    return SingleLabelScores(
        loss=values["loss"],
        accuracy=values["accuracy"],
        map=values["map"],
        top_k={int(k): share for k, share in values["top_k"].items()},
        per_class=tuple(ClassScores(**of_class) for of_class in values["per_class"]),
        confusion_matrix=tuple(tuple(row) for row in values["confusion_matrix"]),
        class_names=tuple(values["class_names"]),
        images=values["images"],
    )


def score_single_label(logits: Tensor, targets: Tensor, class_names: tuple[str, ...]) -> SingleLabelScores:
    """Compute every score from `logits` (N, C) and `targets` (N,), both on the CPU, N ≥ 1."""
    matrix = confusion_matrix(logits.argmax(1), targets, len(class_names))
    return SingleLabelScores(
        loss=cross_entropy(logits, targets),
        accuracy=accuracy(logits, targets),
        map=mean_average_precision(logits, targets),
        top_k={k: top_k_accuracy(logits, targets, k) for k in telling_k(len(class_names))},
        per_class=per_class_scores(matrix, class_names),
        confusion_matrix=tuple(tuple(row) for row in matrix.tolist()),
        class_names=class_names,
        images=len(targets),
    )


def class_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return −ln p(target) of each image (N,), in nats."""
    return functional.cross_entropy(logits.double(), targets, reduction="none")


def mean_average_precision(logits: Tensor, targets: Tensor) -> float:
    """Return the mean average precision of the softmax, each class that has images against the rest."""
    one_hot = targets[:, None] == torch.arange(logits.shape[1])
    precisions = average_precisions(logits.double().softmax(1), one_hot)
    return mean_over_present(precisions, one_hot.any(0))


def cross_entropy(logits: Tensor, targets: Tensor) -> float:
    """Return the mean of −ln p(target), in nats, summed in float64."""
    return float(functional.cross_entropy(logits.double(), targets))


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Return the share of rows of `logits` (N, C) whose largest entry is at `targets` (N,)."""
    return top_k_accuracy(logits, targets, 1)


def top_k_accuracy(logits: Tensor, targets: Tensor, k: int) -> float:
    """Return the share of rows of `logits` (N, C) whose `k` largest entries include `targets` (N,)."""
    hits = (logits.topk(k, dim=1).indices == targets[:, None]).any(1)
    return int(hits.sum()) / len(targets)


def telling_k(classes: int) -> tuple[int, ...]:
    """Return the k > 1 for which top-k accuracy says something: at most half of the classes."""
    return tuple(k for k in (3, 5) if 2 * k <= classes)


def confusion_matrix(predictions: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Count images per (true class, predicted class): (C, C) integers from (N,) and (N,)."""
    return torch.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)


def per_class_scores(matrix: Tensor, class_names: tuple[str, ...]) -> tuple[ClassScores, ...]:
    """Return precision, recall, F1 and support of each class from its confusion matrix (C, C)."""
    hits, support, predicted = matrix.diag().double(), matrix.sum(1), matrix.sum(0)
    precision = hits / predicted.clamp(min=1)
    recall = hits / support.clamp(min=1)
    f1 = 2 * hits / (support + predicted).clamp(min=1)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), support.tolist())
    return tuple(ClassScores(name, *row) for name, *row in zip(class_names, *columns, strict=True))
