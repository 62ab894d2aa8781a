"""A model with everything around it inside: from pixels of any size to probabilities."""

import torch
from torch import Tensor, nn

from finetune.model.classifier import ImageClassifier
from finetune.model.resize import resize_and_crop_pixels

IMAGES, PROBABILITIES, FEATURES = "images", "probabilities", "features"
"""names of the input and the outputs of an exported model"""


class MetadataEncoder(nn.Module):
    """Turn columns of metadata into what a head takes beside features.

    A column of categories is the position of each category, from 1 in the order of training, and 0 for one
    that is missing or new. A column of numbers holds the numbers, and NaN where one is missing.
    """

    def __init__(self, kinds: tuple[bool, ...], means: tuple[float, ...], stds: tuple[float, ...]) -> None:
        """Take which columns hold categories, and mean and standard deviation of each of the others."""
        super().__init__()
        self._is_category = kinds
        self.means: Tensor
        self.scales: Tensor
        self.register_buffer("means", torch.tensor(means, dtype=torch.float64))
        scales = [1 / std if std else 0.0 for std in stds]
        self.register_buffer("scales", torch.tensor(scales, dtype=torch.float64))

    def forward(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return categories (N, K), int64, and numbers (N, 2M), float32, of columns (N,)."""
        pairs = list(zip(columns, self._is_category, strict=True))
        positions = [column for column, is_category in pairs if is_category]
        values = [column for column, is_category in pairs if not is_category]
        rows = columns[0].shape[0]
        categories = torch.stack(positions, 1) if positions else columns[0].new_zeros(rows, 0).long()
        if not values:
            return categories, torch.zeros(rows, 0)
        numbers = torch.stack(values, 1)
        missing = numbers.isnan()
        standardised = (numbers.double() - self.means) * self.scales
        return categories, torch.cat([standardised.masked_fill(missing, 0.0), missing.double()], 1).float()


class DeployedClassifier(nn.Module):
    """Classify pixels of any size as `finetune predict` does: resize, crop, network, probabilities.

    torchvision's own resize and crop cannot be exported: their sizes are computed in Python, and hold for the
    picture that was there when the program was written. See `resize`.
    """

    def __init__(
        self,
        model: ImageClassifier,
        *,
        several: bool,
        temperature: float,
        metadata: MetadataEncoder | None = None,
        features: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            model: on the CPU, in eval mode, with precision float32.
            several: whether an image may have several classes: sigmoid in place of softmax.
            temperature: what logits are divided by.
            metadata: what encodes the columns that the model takes beside images.
            features: whether to return the features as well.
        """
        super().__init__()
        self.model, self.metadata = model, metadata
        self._several, self._temperature, self._features = several, temperature, features

    def forward(self, images: Tensor, *columns: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Turn images (N, H, W, 3), uint8, and columns of metadata (N,) into probabilities (N, C), float32.

        With them, if they were asked for, come the features (N, D).
        """
        features = self.model.features(self.prepared(images))
        encoded = () if self.metadata is None else self.metadata(*columns)
        logits = self.model.head(features, *encoded) / self._temperature
        probabilities = logits.sigmoid() if self._several else logits.softmax(1)
        return (probabilities, features) if self._features else probabilities

    def prepared(self, images: Tensor) -> Tensor:
        """Resize the shorter side of images (N, H, W, 3), uint8, and crop the centre: (N, 3, S, S), uint8."""
        how = self.model.preprocessing
        return resize_and_crop_pixels(
            images.permute(0, 3, 1, 2),
            resize_to=how.resize_size,
            crop_to=how.image_size,
            how=how.interpolation,
        )
