"""The head: what replaces the classifier of a pretrained network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from finetune.choices import HeadPool
from finetune.errors import ConfigError
from finetune.text import counted

# Standard deviation of the first logits, if the features have unit variance: small enough for a loss of ln C.
_FIRST_LOGITS = 0.01


# Standard deviation of the first vectors of an embedding, as in fastai: small against the features, so that
# what a category means is learned, not drawn.
_FIRST_VECTORS = 0.01


@dataclass(frozen=True)
class MetadataInputs:
    """What a head takes beside the features of an image."""

    embeddings: tuple[tuple[int, int], ...] = ()
    """Of each column of categories: rows of its table, and the width of its vectors."""
    numbers: int = 0
    """Columns of numbers, M; each gives a value and a flag."""
    dropout: float = 0.0
    """Fraction of cells (0–1) that training treats as missing."""

    @property
    def width(self) -> int:
        """Width of all of it side by side."""
        return sum(width for _, width in self.embeddings) + 2 * self.numbers


def embedding_width(rows: int) -> int:
    """Return the width of an embedding by fastai's rule, for a table of that many rows."""
    return min(600, round(1.6 * float(rows**0.56)))


class Head(nn.Module):
    """Pool the features, put metadata beside them, and classify with a small multilayer perceptron.

    Each category of metadata enters as a learned vector, looked up by its position (an embedding): the same
    function as a one-hot vector times the table of all vectors, without the multiplication.

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
        pool: HeadPool = "avg+max",
        metadata: MetadataInputs | None = None,
    ) -> None:
        """Draw a head with random weights.

        Args:
            in_features: channels C of the feature map (N, C, h, w), or D of feature vectors (N, D).
            classes: number of logits.
            hidden: width of each hidden layer.
            dropout: probability of dropping a feature before each affine layer; one for all, or one for each;
                by default 0.25 before hidden layers and 0.5 before the last one, as in fastai.
            pool: how a feature map becomes a vector; `avg+max` puts both side by side; `none` for (N, D).
            metadata: what it takes beside the features; None for nothing.

        Raises:
            ConfigError: `dropout` does not fit `hidden`, or a width or a probability is impossible.
        """
        super().__init__()
        self.pool: HeadPool = pool
        metadata = metadata or MetadataInputs()
        self.numbers, self.metadata_dropout = metadata.numbers, metadata.dropout
        self.feature_width = in_features * (2 if pool == "avg+max" else 1)
        """Number D of pooled features."""
        widths = [self.feature_width + metadata.width, *hidden]
        if min(widths) < 1:
            raise ConfigError(f"model.head.hidden: widths must be at least 1, not {list(hidden)}.")
        layers = _layers([*widths, classes], _rates(dropout, len(hidden)))
        self.layers = nn.Sequential(*layers)
        if hidden and metadata.width:
            first = next(layer for layer in layers if isinstance(layer, nn.Linear))
            _draw_by_source(first.weight, [self.feature_width, metadata.width])
        self.embeddings = nn.ModuleList(_embedding(rows, width) for rows, width in metadata.embeddings)

    def forward(self, features: Tensor, *metadata: Tensor) -> Tensor:
        """Turn features (N, C, h, w) or (N, D) into logits (N, classes).

        A head with metadata takes two more: categories (N, K), int64, 0 where one is missing or unseen; and
        numbers (N, 2M), M values, 0 where one is missing, then M flags, 1 where one is missing.
        """
        inputs = [self.pooled(features.float())]
        if metadata:
            drops = self.training and self.metadata_dropout > 0
            categories, numbers = self._dropped(*metadata) if drops else metadata
            inputs += [table(categories[:, k]) for k, table in enumerate(self.embeddings)] + [numbers]
        logits: Tensor = self.layers(torch.cat(inputs, dim=1) if metadata else inputs[0])
        return logits

    def _dropped(self, categories: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Treat a random part of the metadata as missing."""
        columns = categories.shape[1] + self.numbers
        kept = torch.rand(len(categories), columns, device=categories.device) >= self.metadata_dropout
        kept_categories, kept_numbers = kept[:, : categories.shape[1]], kept[:, categories.shape[1] :]
        values, missing = numbers.chunk(2, dim=1)
        missing = torch.where(kept_numbers, missing, 1.0)
        return categories * kept_categories, torch.cat([values * kept_numbers, missing], dim=1)

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


def _layers(widths: Sequence[int], rates: Sequence[float]) -> list[nn.Module]:
    """Return the layers between widths: that of the inputs, of the hidden layers, and of the logits."""
    layers: list[nn.Module] = []
    for i, rate in enumerate(rates):
        last = i == len(rates) - 1
        if len(rates) > 1:
            layers.append(nn.BatchNorm1d(widths[i]))
        layers.append(nn.Dropout(rate))
        layers.append(_linear(widths[i], widths[i + 1], last=last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return layers


def _draw_by_source(weight: Tensor, widths: Sequence[int]) -> None:
    """Draw the weights (F, sum of widths) of a layer so that each source of its inputs has the same say.

    Drawn alike for all inputs, the few of metadata would hardly be heard among thousands of features.
    """
    for part in torch.split(weight.data, list(widths), dim=1):
        nn.init.normal_(part, std=(2 / (len(widths) * part.shape[1])) ** 0.5)


def _embedding(rows: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(rows, width)
    nn.init.trunc_normal_(embedding.weight, std=_FIRST_VECTORS)
    return embedding


def _rates(dropout: float | Sequence[float] | None, hidden: int) -> list[float]:
    """Return the dropout before each affine layer."""
    if dropout is None:
        return [0.25] * hidden + [0.5]
    rates = [dropout] * (hidden + 1) if isinstance(dropout, int | float) else list(dropout)
    if len(rates) != hidden + 1:
        raise ConfigError(
            f"model.head.dropout: {counted(len(rates), 'value')} for {counted(hidden, 'hidden layer')}; "
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
