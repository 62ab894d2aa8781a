"""What a task is: all that differs between images of one class and images that may have several, or none."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from finetune.choices import LossName, LossSetting, Monitor
from finetune.metrics.score import Scores

_LEAST = 1e-6  # share of a class that training does not have, so that the loss stays finite


class Baseline(NamedTuple):
    """Where learning begins and ends, to compare the curves of a training with."""

    chance_loss: float
    """loss of a model that knows nothing of an image, in nats"""
    chance_accuracy: float
    """balanced accuracy of random guessing, 0–1"""
    least_loss: float
    """the lowest training loss that label smoothing and the mixing of images leave possible, in nats"""


class Task(Protocol):
    """The task of a data set, `SingleLabel` or `MultiLabel`, and of the models that are trained on it.

    `labels` are the positions of an image's classes among all C classes, `counts` the numbers of training
    images that have each class.
    """

    multilabel: ClassVar[bool]
    """whether an image may have several classes, or none, as files and tables say it"""
    default_monitor: ClassVar[Monitor]
    """the score by which the best epoch is chosen if the config says `auto`"""
    weighed: ClassVar[str]
    """what has the weights that balance classes"""

    def accepts(self, labels: tuple[int, ...]) -> bool:
        """Tell whether an image may have these classes and no other."""
        ...

    def target(self, labels: tuple[int, ...], classes: int) -> int | list[float]:
        """Return what a model is to answer; targets of N images are `torch.tensor` of a list of these."""
        ...

    def strata(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        """Return of what a split is to have its share: classes, and what else is dealt as if it were one."""
        ...

    def label_text(self, names: Sequence[str]) -> str:
        """Return the class names of an image in one text."""
        ...

    def names_in(self, text: str) -> list[str]:
        """Return the class names in a text that `label_text` wrote."""
        ...

    def require_one_class(self, refusal: str) -> None:
        """Refuse what only works where each image has one class.

        Raises:
            ConfigError: with the text of the refusal, where images may have several classes.
        """
        ...

    def loss_name(self, setting: LossSetting, data: str) -> LossName:
        """Return the loss that is trained.

        Args:
            setting: `loss.name` of the config.
            data: where the images are from, for the message.

        Raises:
            ConfigError: a loss for the other task.
        """
        ...

    def loss(self, *, gamma: float, label_smoothing: float, weights: Sequence[float] | None) -> nn.Module:
        """Return the loss, from logits (N, C) and targets; `weights` are those of `balance_weights`."""
        ...

    def balance_weights(self, counts: Sequence[int], images: int, beta: float) -> list[float]:
        """Return how much more an image counts for each class (C,) where classes of uneven size are balanced.

        Args:
            counts: number of images that have each class.
            images: number of all images.
            beta: as in `balance.py`.
        """
        ...

    def guess(
        self,
        counts: Sequence[int],
        images: int,
        *,
        weights: Sequence[float] | None,
        label_smoothing: float,
        focal: bool,
    ) -> Tensor:
        """Return the logits (C,), float32, that training leads to if images say nothing.

        Their probabilities are the shares of the classes in the training images, as balancing and smoothing
        change them. The focal loss leads to less certain answers, for which there is no formula: all classes
        count as equally likely.

        Args:
            counts: number of training images that have each class.
            images: number of all training images.
            weights: those of `balance_weights`; None where all images count the same.
            label_smoothing: share of the targets that is spread evenly.
            focal: whether the loss is focal.
        """
        ...

    def baseline(
        self, counts: Sequence[int], images: int, *, label_smoothing: float, shares: Sequence[float] = ()
    ) -> Baseline:
        """Return what the curves of a training are compared with.

        Args:
            counts: number of training images that have each class.
            images: number of all training images.
            label_smoothing: share of the targets that is spread evenly.
            shares: of the first of two images in mixtures; none where images are not mixed.
        """
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class (N, C)."""
        ...

    def assigned(self, probabilities: Tensor, thresholds: Sequence[float] | None) -> Tensor:
        """Tell which classes each image is given (N, C), at the thresholds that `score` has chosen."""
        ...

    def certainty(self, probabilities: Tensor, assigned: Tensor) -> Tensor:
        """Return the probability (N,) that a model gives its whole answer, which is what `assigned` tells."""
        ...

    def is_right(self, assigned: Tensor, targets: Tensor) -> Tensor:
        """Tell which images (N,) are given exactly the classes that they have."""
        ...

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image (N,), in nats."""
        ...

    def judge(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Return the loss of each image (N,), in nats, and the accuracy."""
        ...

    def score(
        self,
        logits: Tensor,
        targets: Tensor,
        class_names: tuple[str, ...],
        thresholds: Sequence[float] | None = None,
    ) -> Scores:
        """Compute every score, from tensors on the CPU, N ≥ 1.

        `thresholds` are those of a trained model; None chooses them on these images, where there are any.
        """
        ...


def finite_shares(shares: Sequence[float]) -> Tensor:
    """Return shares (C,), float64, so far from 0 and 1 that their logits are finite."""
    return torch.tensor(shares, dtype=torch.float64).clamp(_LEAST, 1 - _LEAST)
