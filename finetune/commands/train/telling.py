"""The answers of a model that say most about it: its surest mistakes, and what it only just has right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from finetune.data.images import ImageError
from finetune.data.index import ImageIndex, Sample
from finetune.report.html_page import AnsweredImage
from finetune.report.thumbnails import load_thumbnail
from finetune.runs.trained_model import TrainedModel

_MISTAKES, _CLOSE = 12, 6  # how many of each are kept


@dataclass(frozen=True)
class Told:
    """What a model says of one validation image."""

    sample: Sample
    label: str
    """its class; of several the names in one text"""
    answer: str
    """what the model says, likewise"""
    certainty: float
    """the calibrated probability of that answer, 0–1"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as report.json holds it."""
        return {
            "image": self.sample.name,
            "label": self.label,
            "answer": self.answer,
            "certainty": self.certainty,
        }


@dataclass(frozen=True)
class TellingAnswers:
    """The answers to validation images that say most about a model."""

    mistakes: Sequence[Told] = ()
    """the surest first"""
    close: Sequence[Told] = ()
    """right, the least sure first"""

    def to_dict(self) -> dict[str, Any]:
        """Return them as report.json holds them."""
        return {
            "mistakes": [told.to_dict() for told in self.mistakes],
            "close": [told.to_dict() for told in self.close],
        }


def telling_answers(
    trained: TrainedModel, index: ImageIndex, logits: Tensor, targets: Tensor
) -> TellingAnswers:
    """Choose among the answers to the validation images of an index, by logits (N, C) and targets."""
    task, samples, assigned = trained.task, index.of_split("val"), trained.assigned(logits)
    certainty = task.certainty(trained.probabilities(logits), assigned)
    right = task.is_right(assigned, targets)

    def told(position: int) -> Told:
        given = [
            name for name, has in zip(trained.class_names, assigned[position].tolist(), strict=True) if has
        ]
        return Told(
            samples[position],
            index.label_text(samples[position]),
            task.label_text(given),
            float(certainty[position]),
        )

    surest_first = certainty.sort(descending=True, stable=True).indices
    mistakes = [position for position in surest_first.tolist() if not right[position]]
    close = [position for position in surest_first.flip(0).tolist() if right[position]]
    return TellingAnswers(
        [told(position) for position in mistakes[:_MISTAKES]], [told(position) for position in close[:_CLOSE]]
    )


def on_page(trained: TrainedModel, index: ImageIndex, answers: Sequence[Told]) -> list[AnsweredImage]:
    """Return answers with thumbnails; without one that cannot be read any more."""
    shown = []
    for told in answers:
        try:
            thumbnail = load_thumbnail(index, told.sample, trained.limits)
        except ImageError:
            continue
        shown.append(AnsweredImage(told.sample.name, told.label, told.answer, told.certainty, thumbnail))
    return shown
