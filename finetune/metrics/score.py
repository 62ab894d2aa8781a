"""Scores of a classifier, as pure functions of its outputs.

The targets say what is asked: classes (N,), or for images that may have several classes 0 and 1 (N, C).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from finetune.metrics.multi_label import (
    MultiLabelScores,
    label_accuracy,
    label_losses,
    multi_label_scores_from_dict,
    score_multi_label,
)
from finetune.metrics.single_label import (
    SingleLabelScores,
    accuracy,
    class_losses,
    score_single_label,
    single_label_scores_from_dict,
)

Scores = SingleLabelScores | MultiLabelScores


def score(
    logits: Tensor, targets: Tensor, class_names: tuple[str, ...], thresholds: Sequence[float] | None = None
) -> Scores:
    """Compute every score from `logits` (N, C) and `targets`, both on the CPU, N ≥ 1.

    `thresholds` are those of a model that gives several classes; None chooses them on these images.
    """
    if targets.ndim == 1:
        return score_single_label(logits, targets, class_names)
    return score_multi_label(logits, targets, class_names, thresholds)


def judge(logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    """Return the loss of each image (N,), in nats, and the accuracy."""
    if targets.ndim == 1:
        return class_losses(logits, targets), accuracy(logits, targets)
    return label_losses(logits, targets), label_accuracy(logits, targets)


def scores_from_dict(values: Mapping[str, Any]) -> Scores:
    """Return the scores that `to_dict` wrote, from JSON."""
    one = "confusion_matrix" in values
    return single_label_scores_from_dict(values) if one else multi_label_scores_from_dict(values)
