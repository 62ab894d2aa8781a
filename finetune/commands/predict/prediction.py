"""What a model answers for one image."""

from dataclasses import dataclass
from typing import NamedTuple

from finetune.task import Task


@dataclass(frozen=True)
class Answer:
    """What a model says of one class."""

    name: str
    probability: float
    given: bool
    """whether the image has the class, as the model sees it"""
    threshold: float | None
    """probability from which on the class is given; None where the most probable one is"""

    def __str__(self) -> str:
        return f"{self.name} {self.probability:.2%}"


class Verdict(NamedTuple):
    """What a model says of an image."""

    classes: tuple[Answer, ...]
    certainty: float | None
    unlike: bool | None


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: its most probable classes, or why there is none."""

    image: str
    classes: tuple[Answer, ...]
    """the most probable, and all that are given, most probable first; empty if the image cannot be read"""
    certainty: float | None
    """the probability of the whole answer, 0–1: that of the class, or that all classes are right; None for an
    image that cannot be read"""
    unlike: bool | None
    """whether the image is unlike all that the model was trained on; None where that is not known"""
    error: str | None
    top_k: int
    """how many of them were requested"""
    task: Task

    def unsure(self, least: float) -> bool | None:
        """Tell whether the answer is less certain than `least`; None for an image that cannot be read."""
        return None if self.certainty is None else self.certainty < least

    @property
    def labels(self) -> list[str]:
        """Return the classes that the image has."""
        return [answer.name for answer in self.classes if answer.given]
