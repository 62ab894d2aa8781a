"""Which rows of the tables of a report page are shown, where there are thousands: the worst first."""

from collections.abc import Sequence
from typing import NamedTuple

from finetune.metrics.multi_label import LabelScores
from finetune.metrics.score import Scores
from finetune.metrics.single_label import ClassScores, SingleLabelScores
from finetune.runs.history import EpochRow

MATRIX = 40
"""classes of a confusion matrix that can be read"""
_MOST_CLASSES = 1500
_MOST_CONFUSIONS = 300
_MOST_EPOCHS = 300


class Confused(NamedTuple):
    """A cell of the confusion matrix."""

    true: int
    predicted: int
    images: int
    share: float
    """of the images of the true class, 0–1"""


def class_rows(scores: Scores) -> Sequence[ClassScores | LabelScores]:
    """Return the classes in their order; of more than a matrix can show the worst first."""
    if len(scores.per_class) <= MATRIX:
        return scores.per_class
    with_images = [row for row in scores.per_class if row.support]
    without = [row for row in scores.per_class if not row.support]
    return [*sorted(with_images, key=lambda row: row.f1), *without][:_MOST_CLASSES]


def rows_left_out(scores: Scores) -> int:
    """Count the classes that the page has no row for."""
    return max(len(scores.per_class) - _MOST_CLASSES, 0)


def confusions(scores: Scores) -> list[Confused]:
    """Return what is most often taken for what, the most frequent first."""
    wrong = [cell for cell in _cells(scores) if cell.true != cell.predicted]
    return sorted(wrong, key=lambda cell: (-cell.images, -cell.share, cell.true, cell.predicted))[
        :_MOST_CONFUSIONS
    ]


def hits(scores: Scores) -> list[Confused]:
    """Return the cells of what is right, where there is a matrix to open them from."""
    if len(scores.per_class) > MATRIX:
        return []
    return [cell for cell in _cells(scores) if cell.true == cell.predicted]


def epoch_rows(history: Sequence[EpochRow], best: EpochRow) -> list[EpochRow]:
    """Return the epochs to list: all, or of very many the best and some that are evenly spaced."""
    n = len(history)
    kept = {i * (n - 1) // max(_MOST_EPOCHS - 1, 1) for i in range(_MOST_EPOCHS)}
    return [row for number, row in enumerate(history) if n <= _MOST_EPOCHS or number in kept or row is best]


def _cells(scores: Scores) -> list[Confused]:
    if not isinstance(scores, SingleLabelScores):
        return []
    return [
        Confused(true, predicted, images, images / scores.per_class[true].support)
        for true, predicted, images in scores.confusions
    ]
