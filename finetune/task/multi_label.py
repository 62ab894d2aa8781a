"""Images that may have several classes, or none: targets (N, C) are 0 and 1, a sigmoid for each class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from finetune.choices import LossName, LossSetting, Monitor
from finetune.errors import ConfigError
from finetune.metrics.multi_label import (
    MultiLabelScores,
    label_accuracy,
    label_losses,
    label_probabilities,
    score_multi_label,
)
from finetune.task.balance import positive_weights
from finetune.task.losses import MultiLabelLoss
from finetune.task.task import Baseline, finite_shares
from finetune.text import printable

LABEL_JOINT = "|"
"""stands between the class names of an image, in the split.csv of a run"""

_NO_CLASS, _EVERY_IMAGE = 2**31, 2**31 + 1  # strata beyond every class


@dataclass(frozen=True)
class MultiLabel:
    """The task of images that may have several classes; `Task` says what each method is for."""

    multilabel: ClassVar[bool] = True
    default_monitor: ClassVar[Monitor] = "val_map"
    weighed: ClassVar[str] = "a positive"

    def accepts(self, labels: tuple[int, ...]) -> bool:
        """Accept any number of classes."""
        return True

    def target(self, labels: tuple[int, ...], classes: int) -> list[float]:
        """Return 0 and 1 for each class."""
        target = [0.0] * classes
        for label in labels:
            target[label] = 1.0
        return target

    def strata(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        """Return the classes, or that there is none, and what all images have in common.

        Thus the part of the images, and of those without a class, is met like that of each class.
        """
        return *(labels or (_NO_CLASS,)), _EVERY_IMAGE

    def label_text(self, names: Sequence[str]) -> str:
        """Return the names with a joint between them."""
        return LABEL_JOINT.join(names)

    def names_in(self, text: str) -> list[str]:
        """Return the names between the joints; an empty text has none."""
        return text.split(LABEL_JOINT) if text else []

    def require_one_class(self, refusal: str) -> None:
        """Refuse it.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(refusal)

    def loss_name(self, setting: LossSetting, data: str) -> LossName:
        """Return binary cross-entropy for `auto`.

        Raises:
            ConfigError: cross-entropy of all classes together.
        """
        if setting == "cross_entropy":
            raise ConfigError(
                f"loss.name: cross_entropy is for images of one class, and those of {printable(data)} "
                "may have several; write binary_cross_entropy, focal or auto."
            )
        return "binary_cross_entropy" if setting == "auto" else setting

    def loss(self, *, gamma: float, label_smoothing: float, weights: Sequence[float] | None) -> nn.Module:
        """Return the binary cross-entropy of all classes."""
        return MultiLabelLoss(gamma=gamma, label_smoothing=label_smoothing, positive_weights=weights)

    def balance_weights(self, counts: Sequence[int], images: int, beta: float) -> list[float]:
        """Return how much more an image that has a class counts for it than one that has not."""
        return positive_weights(counts, images, beta)

    def guess(
        self,
        counts: Sequence[int],
        images: int,
        *,
        weights: Sequence[float] | None,
        label_smoothing: float,
        focal: bool,
    ) -> Tensor:
        """Return the log-odds of each class's own share of the images."""
        if focal:
            return torch.zeros(len(counts))
        weights = [1.0] * len(counts) if weights is None else weights
        # The weight multiplies what smoothing leaves of the target.
        targets = [(1 - label_smoothing) * count / images + label_smoothing * 0.5 for count in counts]
        pairs = zip(targets, weights, strict=True)
        shares = [target * weight / (target * weight + 1 - target) for target, weight in pairs]
        return finite_shares(shares).logit().float()

    def baseline(
        self, counts: Sequence[int], images: int, *, label_smoothing: float, shares: Sequence[float] = ()
    ) -> Baseline:
        """Compare with giving every class its share of the images."""
        entropies = [_entropy(count / images) for count in counts]
        # Of two images, how often one has a class and the other has not.
        apart = sum(2 * count * (images - count) / images**2 for count in counts) / len(counts)
        mixed = [_entropy((1 - label_smoothing) * share + label_smoothing / 2) for share in shares]
        least = _entropy(label_smoothing / 2)
        if mixed:
            least = (1 - apart) * least + apart * sum(mixed) / len(mixed)
        return Baseline(
            chance_loss=sum(entropies) / len(entropies),
            chance_accuracy=0.5,
            least_loss=least,
        )

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the sigmoid of each logit, in float64."""
        return label_probabilities(logits)

    def assigned(self, probabilities: Tensor, thresholds: Sequence[float] | None) -> Tensor:
        """Tell which classes are at or above their threshold."""
        assert thresholds is not None  # every model of several labels has them
        return probabilities >= torch.tensor(thresholds, dtype=torch.float64)

    def certainty(self, probabilities: Tensor, assigned: Tensor) -> Tensor:
        """Return the product over the classes, as if each were there or not whatever the others are."""
        return torch.where(assigned, probabilities, 1 - probabilities).prod(1)

    def is_right(self, assigned: Tensor, targets: Tensor) -> Tensor:
        """Tell which images are given all their classes and no other."""
        return (assigned == targets.bool()).all(1)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean binary cross-entropies over the classes."""
        return label_losses(logits, targets)

    def judge(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Return the mean binary cross-entropies, and the subset accuracy at the best thresholds."""
        return self.losses(logits, targets), label_accuracy(logits, targets)

    def score(
        self,
        logits: Tensor,
        targets: Tensor,
        class_names: tuple[str, ...],
        thresholds: Sequence[float] | None = None,
    ) -> MultiLabelScores:
        """Compute every score, at thresholds that are given or the best ones for these images."""
        return score_multi_label(logits, targets, class_names, thresholds)


def _entropy(share: float) -> float:
    """Return the entropy of a yes or no, in nats."""
    return -sum(part * math.log(part) for part in (share, 1 - share) if part)
