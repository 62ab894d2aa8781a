"""Test-time augmentation: several views of each image, over which a model's answers are averaged.

The views are the same each time. They vary what training varied: which part of the image is seen, how much it
is stretched and, where training mirrored images, which side is left. docs/recipe.md says what they were
chosen from, on photographs.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from finetune.data.loading.transforms import Transform, interpolation_of, resize_and_crop
from finetune.model.preprocessing import Preprocessing


def view_transform(preprocessing: Preprocessing, *, mirror: bool) -> Transform:
    """Build the transform that makes all views of an image, uint8 (V, 3, S, S), without any randomness."""
    usual = v2.Compose(resize_and_crop(preprocessing))
    views = Views([usual, WiderView(preprocessing)], mirror=mirror)
    return Transform(v2.Compose([v2.PILToTensor(), views]), shrink_to=2 * preprocessing.resize_size)


def count_views(*, mirror: bool) -> int:
    """Count the views that `view_transform` makes of an image."""
    return 4 if mirror else 2


class Views(nn.Module):
    """Make several views of an image, and perhaps each of them mirrored as well."""

    def __init__(self, crops: list[nn.Module], *, mirror: bool) -> None:
        super().__init__()
        self.crops, self.mirror = crops, mirror

    def forward(self, image: Tensor) -> Tensor:
        """Turn pixels (3, H, W) into views (V, 3, S, S)."""
        views = torch.stack([crop(image) for crop in self.crops])
        return torch.cat([views, views.flip(-1)]) if self.mirror else views


class WiderView(nn.Module):
    """Show more of an image than evaluation does, stretched to a square.

    Of the longer side the geometric mean of both sides is kept. A photograph of 4 to 3 is thus stretched by
    1.15, where random crops of training stretch by up to 1.33; a square image is seen whole.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.size = preprocessing.image_size
        self.interpolation = interpolation_of(preprocessing)

    def forward(self, image: Tensor) -> Tensor:
        """Turn pixels (3, H, W) into pixels (3, S, S)."""
        height, width = image.shape[-2:]
        longest = round(math.sqrt(height * width))
        part = functional.center_crop(image, [min(height, longest), min(width, longest)])
        size = [self.size, self.size]
        view: Tensor = functional.resize(part, size, interpolation=self.interpolation, antialias=True)
        return view
