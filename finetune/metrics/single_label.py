"""Scores of a classifier that gives each image one class."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from finetune.metrics.ranking import average_precisions

_BLOCK = 256  # images or classes that are looked at together, so that memory does not grow with their number

MOST_IN_MATRIX = 1000
"""classes of which JSON holds a whole confusion matrix"""


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
    confusions: tuple[tuple[int, int, int], ...]
    """(true class, predicted class, images), by positions in `class_names` and in their order, hits included;
    pairs without images are left out."""
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
    def confusion_matrix(self) -> list[list[int]]:
        """Return images by true class (rows) and predicted class (columns), in the order of `class_names`."""
        matrix = [[0] * len(self.class_names) for _ in self.class_names]
        for true, predicted, images in self.confusions:
            matrix[true][predicted] = images
        return matrix

    @property
    def predicted(self) -> tuple[int, ...]:
        """Return the number of images that are given each class, in the order of `class_names`."""
        numbers = [0] * len(self.class_names)
        for _, predicted, images in self.confusions:
            numbers[predicted] += images
        return tuple(numbers)

    @property
    def never_predicted(self) -> frozenset[str]:
        """Return the classes without a prediction, whose precision is 0 / 0."""
        pairs = zip(self.class_names, self.predicted, strict=True)
        return frozenset(name for name, images in pairs if not images)

    def to_dict(self) -> dict[str, object]:
        """Return the scores as the JSON that `evaluate --json` and `report.json` document.

        Of up to 1,000 classes the whole confusion matrix; of more, what of it is not 0.
        """
        values = asdict(self) | {"balanced_accuracy": self.balanced_accuracy, "macro_f1": self.macro_f1}
        values["top_k"] = {str(k): share for k, share in self.top_k.items()}
        if len(self.class_names) <= MOST_IN_MATRIX:
            del values["confusions"]
            values["confusion_matrix"] = self.confusion_matrix
        return values


def single_label_scores_from_dict(values: Mapping[str, Any]) -> SingleLabelScores:
    """Return the scores that `SingleLabelScores.to_dict` wrote, from JSON."""
    return SingleLabelScores(
        loss=values["loss"],
        accuracy=values["accuracy"],
        map=values["map"],
        top_k={int(k): share for k, share in values["top_k"].items()},
        per_class=tuple(ClassScores(**of_class) for of_class in values["per_class"]),
        confusions=_confusions_of(values),
        class_names=tuple(values["class_names"]),
        images=values["images"],
    )


def _confusions_of(values: Mapping[str, Any]) -> tuple[tuple[int, int, int], ...]:
    if "confusions" in values:
        return tuple((true, predicted, images) for true, predicted, images in values["confusions"])
    return tuple(
        (true, predicted, images)
        for true, row in enumerate(values["confusion_matrix"])
        for predicted, images in enumerate(row)
        if images
    )


def score_single_label(logits: Tensor, targets: Tensor, class_names: tuple[str, ...]) -> SingleLabelScores:
    """Compute every score from `logits` (N, C) and `targets` (N,), both on the CPU, N ≥ 1."""
    predictions = logits.argmax(1)
    return SingleLabelScores(
        loss=cross_entropy(logits, targets),
        accuracy=accuracy(logits, targets),
        map=mean_average_precision(logits, targets),
        top_k={k: top_k_accuracy(logits, targets, k) for k in telling_k(len(class_names))},
        per_class=per_class_scores(predictions, targets, class_names),
        confusions=count_confusions(predictions, targets),
        class_names=class_names,
        images=len(targets),
    )


def class_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return −ln p(target) of each image (N,), in nats."""
    return functional.cross_entropy(logits.double(), targets, reduction="none")


def mean_average_precision(logits: Tensor, targets: Tensor) -> float:
    """Return the mean average precision of the softmax, each class that has images against the rest.

    Only some classes at a time: the probabilities of ten thousand would fill the memory.
    """
    log_sums = torch.cat([block.double().logsumexp(1) for block in torch.split(logits, _BLOCK)])
    precisions = []
    for classes in torch.split(torch.bincount(targets).nonzero()[:, 0], _BLOCK):
        probabilities = (logits[:, classes].double() - log_sums[:, None]).exp()
        precisions.append(average_precisions(probabilities, targets[:, None] == classes))
    return float(torch.cat(precisions).mean())


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


def count_confusions(predictions: Tensor, targets: Tensor) -> tuple[tuple[int, int, int], ...]:
    """Count the images of each (true class, predicted class) that there is, from (N,) and (N,), in order."""
    counts = Counter(zip(targets.tolist(), predictions.tolist(), strict=True))
    return tuple((true, predicted, images) for (true, predicted), images in sorted(counts.items()))


def per_class_scores(
    predictions: Tensor, targets: Tensor, class_names: tuple[str, ...]
) -> tuple[ClassScores, ...]:
    """Return precision, recall, F1 and support of each class from predictions (N,) and targets (N,)."""
    classes = len(class_names)
    hits = torch.bincount(targets[predictions == targets], minlength=classes).double()
    support = torch.bincount(targets, minlength=classes)
    predicted = torch.bincount(predictions, minlength=classes)
    precision = hits / predicted.clamp(min=1)
    recall = hits / support.clamp(min=1)
    f1 = 2 * hits / (support + predicted).clamp(min=1)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), support.tolist())
    return tuple(ClassScores(name, *row) for name, *row in zip(class_names, *columns, strict=True))
