"""The loss of a batch: cross-entropy, of one class or of each, focused on hard images, smoothed, weighted."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ClassificationLoss(nn.Module):
    """The mean over a batch of weight · (1 − p)^gamma · cross-entropy, where p is the target's probability.

    With gamma 0 it is cross-entropy, else the focal loss (Lin et al., Focal Loss for Dense Object Detection,
    2017), in which images that are right already count little. Weights are those of the images' own classes,
    and are not divided by their sum over the batch: a batch that has more of the rare classes weighs more.
    Of a mixture of images it is the loss of each class, by its share. It is never negative.
    """

    weights: Tensor | None

    def __init__(
        self,
        *,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", weights)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss (), from `logits` (N, C) and `targets`, classes (N,) or their shares (N, C)."""
        if self.gamma == 0 and self.weights is None:
            return functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        if targets.is_floating_point():
            return self._of_shares(logits, targets)
        losses = functional.cross_entropy(
            logits, targets, label_smoothing=self.label_smoothing, reduction="none"
        )
        if self.gamma:
            log_p = functional.log_softmax(logits, dim=1).gather(1, targets[:, None])[:, 0]
            # 1 − p, of which a power below 1 has no finite slope at 0.
            losses = losses * (-torch.expm1(log_p)).clamp(min=1e-6) ** self.gamma
        if self.weights is not None:
            losses = losses * self.weights[targets]
        return losses.mean()

    def _of_shares(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted loss of targets (N, C) between the classes.

        Raises:
            ValueError: the focal loss, which goes by the probability of the one class that is right.
        """
        if self.gamma or self.weights is None:
            raise ValueError("the focal loss takes classes (N,), no shares of them (N, C)")
        losses = -functional.log_softmax(logits, dim=1)
        smooth = (1 - self.label_smoothing) * losses + self.label_smoothing * losses.mean(1, keepdim=True)
        return (targets * self.weights * smooth).sum(1).mean()


class MultiLabelLoss(nn.Module):
    """The mean over images and classes of (1 − p)^gamma · binary cross-entropy, p that of the right answer.

    Every class is a question of its own, answered by yes or no. With gamma 0 it is binary cross-entropy, else
    the focal loss in the form of Lin et al. (2017). Smoothing moves targets towards 1/2. `positive_weights`
    multiply the loss of the images that have a class. It is never negative.
    """

    positive_weights: Tensor | None

    def __init__(
        self,
        *,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
        positive_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        weights = None if positive_weights is None else torch.tensor(positive_weights, dtype=torch.float32)
        self.register_buffer("positive_weights", weights)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss (), from `logits` (N, C) and `targets` (N, C), 0 and 1, or between in mixtures."""
        smooth = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        yes, no = -functional.logsigmoid(logits), -functional.logsigmoid(-logits)
        if self.positive_weights is not None:
            yes = yes * self.positive_weights
        # Two products that cannot be negative; torch's own form subtracts, and may round to less than 0.
        losses = smooth * yes + (1 - smooth) * no
        if self.gamma:
            wrong = torch.where(targets > 0.5, -logits, logits).sigmoid()
            losses = losses * wrong.clamp(min=1e-6) ** self.gamma  # a power below 1 is infinitely steep at 0
        return losses.mean()
