"""What a model says of an image."""

from collections.abc import Mapping
from dataclasses import dataclass

from finetune.commands.predict.prediction import Prediction as CommandPrediction


@dataclass(frozen=True)
class Prediction:
    """The answer of a model for one image."""

    image: str
    """path of the image; `image 1`, `image 2` … for those that were in memory"""
    labels: tuple[str, ...]
    """the classes that the image has: the most probable one; or, for a model of several labels, all whose
    probability reaches their threshold, which may be none"""
    probabilities: Mapping[str, float]
    """probability of each class, 0–1, the most probable first; with `top_k`, of that many and of `labels`"""
    certainty: float | None = None
    """the probability of the whole answer, 0–1: that of `label`, or that `labels` are right and all; None for
    an image that cannot be read"""
    unlike: bool | None = None
    """whether the image is unlike all that the model was trained on; None where that is not known"""
    error: str | None = None
    """why the image cannot be read; it has no labels and no probabilities then"""

    @property
    def label(self) -> str | None:
        """The most probable class; None for an image that cannot be read."""
        return next(iter(self.probabilities), None)

    @property
    def probability(self) -> float | None:
        """The probability of `label`, 0–1; None for an image that cannot be read."""
        return next(iter(self.probabilities.values()), None)


def from_command(answer: CommandPrediction) -> Prediction:
    """Return what the command answers, as this package does."""
    probabilities = {one.name: one.probability for one in answer.classes}
    return Prediction(
        answer.image, tuple(answer.labels), probabilities, answer.certainty, answer.unlike, answer.error
    )
