"""From an image to the pixels that enter the model: uint8 (3, H, W), normalised later, inside the model.

Evaluation follows torchvision's preset for its weights: resize, then centre crop. Training draws all its
randomness from torch's CPU generator, which the data set seeds for each image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms import InterpolationMode, v2

from finetune.choices import Augment
from finetune.model.preprocessing import Preprocessing


@dataclass(frozen=True)
class Transform:
    """What happens to an image between file and model."""

    steps: v2.Compose
    """from an RGB image, or its pixels, to uint8 (3, H, W)"""
    shrink_to: int
    """shortest side in pixels that big photos may be decoded at; pass it to `read_image`"""
    fixed: bool = False
    """draws nothing: an image is shown in the same way each time"""

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        """Turn an RGB image, or its pixels uint8 (3, H, W), into uint8 pixels as the model takes them."""
        pixels: Tensor = self.steps(image)
        return pixels


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """Build the transform for evaluation and prediction, without any randomness."""
    return _transform(resize_and_crop(preprocessing), preprocessing, fixed=True)


def train_transform(level: Augment, preprocessing: Preprocessing) -> Transform:
    """Build the transform for training.

    Args:
        level: `none` is the evaluation transform. `light` shifts, turns and scales a little and mirrors
            nothing, as digits and text need it. `standard` takes random crops, mirrors, and varies light and
            colour a little. `strong` takes smaller crops, adds one random distortion, and may erase a patch.
            `randaugment` (Cubuk et al., 2020) takes the crops of `standard`, mirrors, and applies two random
            distortions of magnitude 9 of 30; `trivial` (Müller & Hutter, 2021) one of any magnitude.
        preprocessing: image size and interpolation that belong to the weights.
    """
    steps: list[nn.Module]
    match level:
        case "none":
            steps = resize_and_crop(preprocessing)
        case "light":
            steps = [*resize_and_crop(preprocessing), RandomNudge(degrees=8, shift=0.06, scale=(0.9, 1.1))]
        case "standard":
            steps = [
                _random_crop(preprocessing, smallest=0.35),
                v2.RandomHorizontalFlip(),
                LightAndColour(0.2),
            ]
        case "randaugment" | "trivial":
            policy = v2.RandAugment if level == "randaugment" else v2.TrivialAugmentWide
            steps = [
                _random_crop(preprocessing, smallest=0.35),
                v2.RandomHorizontalFlip(),
                policy(interpolation=InterpolationMode.BILINEAR),
            ]
        case "strong":
            steps = [
                _random_crop(preprocessing, smallest=0.2),
                v2.RandomHorizontalFlip(),
                v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR),
                v2.RandomErasing(p=0.25),
            ]
    return _transform(steps, preprocessing, fixed=level == "none")


class RandomNudge(nn.Module):
    """Turn, shift and scale an image a little; what comes in at the border continues its edge.

    `v2.RandomAffine` fills the border with one colour, which no photo has; padding before it costs three
    times as much.
    """

    def __init__(self, *, degrees: float, shift: float, scale: tuple[float, float]) -> None:
        super().__init__()
        self.degrees = degrees
        """largest angle to either side"""
        self.shift = shift
        """largest shift to either side, as a part of the image's side"""
        self.scale = scale
        """smallest and largest magnification"""

    def draw(self) -> list[list[float]]:
        """Draw a matrix (2, 3), as `affine_grid` takes it."""
        turn, right, down, size = (2 * torch.rand(4) - 1).tolist()
        low, high = self.scale
        angle = math.radians(self.degrees * turn)
        zoom = (high + low) / 2 + (high - low) / 2 * size
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        # An image spans -1 … 1 for affine_grid, hence the 2.
        return [[cos, sin, 2 * self.shift * right], [-sin, cos, 2 * self.shift * down]]

    def forward(self, image: Tensor) -> Tensor:
        """Move the pixels of a square uint8 image (3, S, S)."""
        theta = torch.tensor([self.draw()])
        grid = F.affine_grid(theta, [1, *image.shape], align_corners=False)
        moved = F.grid_sample(image[None].float(), grid, padding_mode="border", align_corners=False)
        return _to_bytes(moved[0].round_())


class LightAndColour(nn.Module):
    """Vary brightness, contrast and saturation, in random order.

    The bits are those of `v2.ColorJitter`, in a third of the time: that turns an image into bytes and back
    after each of the three, where to cut off what is behind the point does the same.
    """

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.drawn = v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount)
        """Draws how much, by the factors 1 − `amount` to 1 + `amount`."""

    def forward(self, image: Tensor) -> Tensor:
        """Change pixels uint8 (3, H, W)."""
        drawn = self.drawn.make_params([image])
        changes = {
            0: (_brighten, drawn["brightness_factor"]),
            1: (_blend_with_mean, drawn["contrast_factor"]),
            2: (_blend_with_grey, drawn["saturation_factor"]),
        }
        pixels = image.to(torch.float32)
        for number in drawn["fn_idx"].tolist():
            if number in changes:  # the fourth is the hue
                change, factor = changes[number]
                change(pixels, factor)
                pixels.clamp_(0, 255).floor_()
        return _to_bytes(pixels)


def _to_bytes(pixels: Tensor) -> Tensor:
    """Return numbers of 0 to 255 without what is behind the point; at once it takes thrice as long."""
    return pixels.to(torch.int16).to(torch.uint8)


def _brighten(pixels: Tensor, factor: float) -> None:
    pixels.mul_(factor)


def _blend_with_mean(pixels: Tensor, factor: float) -> None:
    mean = _grey(pixels).mean(dim=(-3, -2, -1), keepdim=True)
    pixels.mul_(factor).add_(mean, alpha=1.0 - factor)


def _blend_with_grey(pixels: Tensor, factor: float) -> None:
    grey = _grey(pixels)
    pixels.mul_(factor).add_(grey, alpha=1.0 - factor)


def _grey(pixels: Tensor) -> Tensor:
    """Return whole grey levels (1, H, W) of pixels (3, H, W), float32."""
    red, green, blue = torch.unbind(pixels)
    grey = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return grey.floor_().unsqueeze(0)


def mirrors(level: Augment) -> bool:
    """Tell whether training with an augmentation shows images mirrored as well."""
    return level in ("standard", "strong", "randaugment", "trivial")


def _transform(steps: Sequence[nn.Module], preprocessing: Preprocessing, *, fixed: bool) -> Transform:
    # Twice the size for evaluation: then also training crops of a quarter of the area are not enlarged.
    shrink_to = 2 * preprocessing.resize_size
    return Transform(v2.Compose([v2.PILToTensor(), *steps]), shrink_to=shrink_to, fixed=fixed)


def resize_and_crop(preprocessing: Preprocessing) -> list[nn.Module]:
    """Return the steps of the evaluation transform: resize, then crop the centre."""
    return [
        v2.Resize(preprocessing.resize_size, interpolation=interpolation_of(preprocessing), antialias=True),
        v2.CenterCrop(preprocessing.image_size),
    ]


def _random_crop(preprocessing: Preprocessing, *, smallest: float) -> v2.RandomResizedCrop:
    return v2.RandomResizedCrop(
        preprocessing.image_size,
        scale=(smallest, 1.0),
        interpolation=interpolation_of(preprocessing),
        antialias=True,
    )


def interpolation_of(preprocessing: Preprocessing) -> InterpolationMode:
    """Return torchvision's word for how images are resized."""
    return InterpolationMode(preprocessing.interpolation)
