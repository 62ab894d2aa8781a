"""The loss of a batch: cross-entropy, perhaps focused on hard images, smoothed, or weighted by class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ClassificationLoss(nn.Module):
    """The mean over a batch of weight · (1 − p)^gamma · cross-entropy, where p is the target's probability.

    With gamma 0 it is cross-entropy, else the focal loss (Lin et al., Focal Loss for Dense Object Detection,
    2017), in which images that are right already count little. Weights are those of the images' own classes,
    and are not divided by their sum over the batch: a batch that has more of the rare classes weighs more.
    It is never negative.
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
        """Give the loss (), from `logits` (N, C) and `targets` (N,)."""
        if self.gamma == 0 and self.weights is None:
            return functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
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
