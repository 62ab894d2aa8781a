"""One thing that the curves of a run show, and what the advice on it needs to know."""

import math
from dataclasses import dataclass
from typing import Literal

Trouble = Literal[
    "rate too high",
    "plateau",
    "rate too low",
    "nothing learned",
    "collapsed",
    "overfitting",
    "underfitting",
    "still improving",
]


@dataclass(frozen=True)
class Finding:
    """One thing that the curves show."""

    trouble: Trouble
    stage: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.trouble} (stage {self.stage}): {self.evidence}\n  try {self.advice}"


@dataclass(frozen=True)
class Knobs:
    """What the advice needs to know of the task and of the config."""

    classes: int
    label_smoothing: float
    """Share of the target (0–1) that is spread over all classes in training."""
    weight_decay: float
    augment: str
    trains_all: bool
    """Whether the last stage trains all layer groups."""
    pretrained: bool = True
    """Whether training started from weights other than random ones."""
    prevalences: tuple[float, ...] = ()
    """Share of the images (0–1) that have each class, where one may have several; empty where it has one."""

    @property
    def chance_loss(self) -> float:
        """The loss of giving every class the same probability, or its share of the images, in nats."""
        if self.prevalences:
            return sum(map(_entropy, self.prevalences)) / len(self.prevalences)
        return math.log(self.classes)

    @property
    def chance_accuracy(self) -> float:
        """The balanced accuracy of random guessing, 0–1."""
        return 0.5 if self.prevalences else 1 / self.classes

    @property
    def least_loss(self) -> float:
        """The lowest training loss that label smoothing leaves possible, in nats."""
        if self.prevalences:
            return _entropy(self.label_smoothing / 2)
        other = self.label_smoothing / self.classes
        right = 1 - self.label_smoothing + other
        return -right * math.log(right) - (self.classes - 1) * (other * math.log(other) if other else 0.0)


@dataclass(frozen=True)
class Predictions:
    """How the best model divides the validation images among the classes, where each gets one."""

    class_names: tuple[str, ...]
    predicted: tuple[int, ...]
    """Number of images that are predicted as each class."""
    actual: tuple[int, ...]
    """Number of images of each class."""
    loss: float
    """Mean cross-entropy of these predictions, in nats."""

    @property
    def constant_loss(self) -> float:
        """The lowest loss of a model that does not look at the image: the entropy of the classes, in nats."""
        shares = [count / sum(self.actual) for count in self.actual if count]
        return -sum(share * math.log(share) for share in shares)


def _entropy(share: float) -> float:
    """Return the entropy of a yes or no, in nats."""
    return -sum(part * math.log(part) for part in (share, 1 - share) if part)
