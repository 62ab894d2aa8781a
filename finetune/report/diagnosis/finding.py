"""One thing that the curves of a run show, and what the advice on it needs to know."""

import math
from dataclasses import dataclass
from typing import Literal

from finetune.choices import Monitor

Trouble = Literal[
    "rate too high",
    "plateau",
    "rate too low",
    "nothing learned",
    "collapsed",
    "overfitting",
    "underfitting",
    "still improving",
    "no gain",
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

    chance_loss: float
    """The loss of a model that knows nothing of an image, in nats."""
    chance_accuracy: float
    """The balanced accuracy of random guessing, 0–1."""
    least_loss: float
    """The lowest training loss that label smoothing and the mixing of images leave possible, in nats."""
    weight_decay: float
    augment: str
    trains_all: bool
    """Whether the last stage trains all layer groups."""
    mixed: bool = False
    """Whether the training loss is that of mixed images, which none of validation are."""
    monitor: Monitor = "val_accuracy"
    """What makes an epoch the best one."""
    pretrained: bool = True
    """Whether training started from weights other than random ones."""


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
