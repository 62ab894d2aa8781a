"""Images that have one class each: targets (N,) are classes, and probabilities a softmax."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from finetune.choices import LossName, LossSetting, Monitor
from finetune.errors import ConfigError
from finetune.metrics.single_label import SingleLabelScores, accuracy, class_losses, score_single_label
from finetune.task.balance import class_weights
from finetune.task.losses import ClassificationLoss
from finetune.task.task import Baseline, finite_shares
from finetune.text import printable


@dataclass(frozen=True)
class SingleLabel:
    """The task of images that have one class each; `Task` says what each method is for."""

    multilabel: ClassVar[bool] = False
    default_monitor: ClassVar[Monitor] = "val_accuracy"
    weighed: ClassVar[str] = "an image"

    def accepts(self, labels: tuple[int, ...]) -> bool:
        """Tell whether this is one class."""
        return len(labels) == 1

    def target(self, labels: tuple[int, ...], classes: int) -> int:
        """Return the class."""
        (target,) = labels
        return target

    def strata(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        """Return the class."""
        return labels

    def label_text(self, names: Sequence[str]) -> str:
        """Return the name of the class, whatever it holds."""
        (name,) = names
        return name

    def names_in(self, text: str) -> list[str]:
        """Return the name of the class."""
        return [text]

    def require_one_class(self, refusal: str) -> None:
        """Refuse nothing."""

    def loss_name(self, setting: LossSetting, data: str) -> LossName:
        """Return cross-entropy for `auto`.

        Raises:
            ConfigError: binary cross-entropy.
        """
        if setting == "binary_cross_entropy":
            raise ConfigError(
                "loss.name: binary_cross_entropy is for images that may have several classes, and those of "
                f"{printable(data)} have one; write cross_entropy, focal or auto, or name what "
                "separates classes in data.label_separator."
            )
        return "cross_entropy" if setting == "auto" else setting

    def loss(self, *, gamma: float, label_smoothing: float, weights: Sequence[float] | None) -> nn.Module:
        """Return the cross-entropy of the class."""
        return ClassificationLoss(gamma=gamma, label_smoothing=label_smoothing, class_weights=weights)

    def balance_weights(self, counts: Sequence[int], images: int, beta: float) -> list[float]:
        """Return the weight of an image of each class, such that the mean over all images is 1."""
        return class_weights(counts, beta)

    def guess(
        self,
        counts: Sequence[int],
        images: int,
        *,
        weights: Sequence[float] | None,
        label_smoothing: float,
        focal: bool,
    ) -> Tensor:
        """Return the logarithms of the classes' shares, by the weight of their images."""
        even = 1 / len(counts)
        if focal:
            shares = [even] * len(counts)
        else:
            weights = [1.0] * len(counts) if weights is None else weights
            weighed = [count * weight for count, weight in zip(counts, weights, strict=True)]
            certain = 1 - label_smoothing
            shares = [certain * have / sum(weighed) + label_smoothing * even for have in weighed]
        return finite_shares(shares).log().float()

    def baseline(
        self, counts: Sequence[int], images: int, *, label_smoothing: float, shares: Sequence[float] = ()
    ) -> Baseline:
        """Compare with giving every class the same probability."""
        classes = len(counts)
        other = label_smoothing / classes

        def least_of(share: float) -> float:
            """Return the entropy of the targets of an image that has a share of another class."""
            two = [(1 - label_smoothing) * part + other for part in (share, 1 - share)]
            return sum(map(_information, two)) + (classes - 2) * _information(other)

        alike = sum((count / images) ** 2 for count in counts) if shares else 1.0
        least = alike * least_of(1) + sum((1 - alike) * least_of(share) / len(shares) for share in shares)
        return Baseline(chance_loss=math.log(classes), chance_accuracy=1 / classes, least_loss=least)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax: of all classes together 1."""
        return logits.softmax(1)

    def assigned(self, probabilities: Tensor, thresholds: Sequence[float] | None) -> Tensor:
        """Tell which class is the most probable; of equally probable ones the first is."""
        best = probabilities.argmax(1)
        return functional.one_hot(best, probabilities.shape[1]).bool()

    def certainty(self, probabilities: Tensor, assigned: Tensor) -> Tensor:
        """Return the probability of the class that is given."""
        return (probabilities * assigned).sum(1)

    def is_right(self, assigned: Tensor, targets: Tensor) -> Tensor:
        """Tell which images are given their class."""
        return assigned.gather(1, targets[:, None])[:, 0]

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropies."""
        return class_losses(logits, targets)

    def judge(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Return the cross-entropies, and the share of images whose most probable class is right."""
        return self.losses(logits, targets), accuracy(logits, targets)

    def score(
        self,
        logits: Tensor,
        targets: Tensor,
        class_names: tuple[str, ...],
        thresholds: Sequence[float] | None = None,
    ) -> SingleLabelScores:
        """Compute every score; the most probable class is the answer, so that there are no thresholds."""
        return score_single_label(logits, targets, class_names)


def _information(share: float) -> float:
    """Return what a class adds to an entropy, in nats."""
    return -share * math.log(share) if share else 0.0
