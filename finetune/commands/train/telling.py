"""The answers of a model that say most about it: its surest mistakes, and what it only just has right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from finetune.choices import Split
from finetune.data.index import ImageIndex, Sample
from finetune.runs.trained_model import TrainedModel

_MISTAKES, _CLOSE = 12, 6  # how many of each are kept


@dataclass(frozen=True)
class Told:
    """What a model says of one image."""

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
    """The answers that say most about a model."""

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


def tell(
    trained: TrainedModel, index: ImageIndex, sample: Sample, assigned: Tensor, certainty: Tensor
) -> Told:
    """Put into words which classes an image is given (C,), and how certainly."""
    given = [name for name, has in zip(trained.class_names, assigned.tolist(), strict=True) if has]
    return Told(sample, index.label_text(sample), trained.task.label_text(given), float(certainty))


def telling_answers(
    trained: TrainedModel, index: ImageIndex, logits: Tensor, targets: Tensor, *, split: Split = "val"
) -> TellingAnswers:
    """Choose among the answers to the images of a split, by logits (N, C) and targets."""
    task, samples, assigned = trained.task, index.of_split(split), trained.assigned(logits)
    certainty = task.certainty(trained.probabilities(logits), assigned)
    right = task.is_right(assigned, targets)

    def told(position: int) -> Told:
        return tell(trained, index, samples[position], assigned[position], certainty[position])

    surest_first = certainty.sort(descending=True, stable=True).indices
    mistakes = [position for position in surest_first.tolist() if not right[position]]
    close = [position for position in surest_first.flip(0).tolist() if right[position]]
    return TellingAnswers(
        [told(position) for position in mistakes[:_MISTAKES]], [told(position) for position in close[:_CLOSE]]
    )
