"""The head: what replaces the classifier of a pretrained network."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from finetune.errors import ConfigError

Pool = Literal["avg+max", "avg", "max", "none"]

# Standard deviation of the first logits, if the features have unit variance: small enough for a loss of ln C.
_FIRST_LOGITS = 0.01


class Head(nn.Module):
    """Pool the features and classify them with a small multilayer perceptron.

    Each affine layer has BatchNorm and Dropout before it, and ReLU behind it unless it is the last. Without
    hidden layers the head is a linear probe: Dropout and a single affine layer on the features as they are.
    """

    def __init__(
        self,
        in_features: int,
        classes: int,
        *,
        hidden: Sequence[int] = (512,),
        dropout: float | Sequence[float] | None = None,
        pool: Pool = "avg+max",
    ) -> None:
        """Draw a head with random weights.

        Args:
            in_features: channels C of the feature map (N, C, h, w), or D of feature vectors (N, D).
            classes: number of logits.
            hidden: width of each hidden layer.
            dropout: probability of dropping a feature before each affine layer; one for all, or one for each;
                by default 0.25 before hidden layers and 0.5 before the last one, as in fastai.
            pool: how a feature map becomes a vector; `avg+max` puts both side by side; `none` for (N, D).

        Raises:
            ConfigError: `dropout` does not fit `hidden`, or a width or a probability is impossible.
        """
        super().__init__()
        self.pool: Pool = pool
        widths = [in_features * (2 if pool == "avg+max" else 1), *hidden]
        if min(widths) < 1:
            raise ConfigError(f"model.head.hidden: widths must be at least 1, not {list(hidden)}.")
        rates = _rates(dropout, len(hidden))
        layers: list[nn.Module] = []
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            if hidden:
                layers.append(nn.BatchNorm1d(width))
            layers.append(nn.Dropout(rates[i]))
            layers.append(_linear(width, classes if last else widths[i + 1], last=last))
            if not last:
                layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (N, C, h, w) or (N, D) into logits (N, classes)."""
        logits: Tensor = self.layers(self.pooled(features.float()))
        return logits

    def pooled(self, features: Tensor) -> Tensor:
        """Turn features (N, C, h, w) into vectors (N, D); leave vectors as they are."""
        if features.ndim == 2:
            return features
        # Not adaptive pooling: its backward is not deterministic on CUDA.
        pooled = []
        if self.pool in ("avg+max", "avg"):
            pooled.append(features.mean((2, 3)))
        if self.pool in ("avg+max", "max"):
            pooled.append(features.amax((2, 3)))
        return torch.cat(pooled, dim=1)


def _rates(dropout: float | Sequence[float] | None, hidden: int) -> list[float]:
    """Give the dropout before each affine layer."""
    if dropout is None:
        return [0.25] * hidden + [0.5]
    rates = [dropout] * (hidden + 1) if isinstance(dropout, int | float) else list(dropout)
    if len(rates) != hidden + 1:
        raise ConfigError(
            f"model.head.dropout: {len(rates)} values do not fit {hidden} hidden layers; "
            f"give {hidden + 1}, one before each affine layer, or a single number for all."
        )
    if not all(0 <= rate < 1 for rate in rates):
        raise ConfigError(f"model.head.dropout: fractions must be at least 0 and below 1, not {rates}.")
    return rates


def _linear(in_features: int, out_features: int, *, last: bool) -> nn.Linear:
    linear = nn.Linear(in_features, out_features)
    if last:
        # A last layer drawn as large as the others starts well above ln C and first unlearns its guesses.
        nn.init.normal_(linear.weight, std=_FIRST_LOGITS / in_features**0.5)
    else:
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return linear
