"""Augmentation in two halves: what is drawn for each image, where it is loaded, and the work, on the device.

Both halves together make of an image what the transform of the same level makes of it alone: the draws come
from the same generator, seeded for the image, in the same order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from finetune.choices import Augment
from finetune.data.loading.device_transforms import move, resize, vary_colours
from finetune.data.loading.transforms import (
    LightAndColour,
    RandomNudge,
    Transform,
    train_transform,
)
from finetune.model.preprocessing import Preprocessing

LARGEST = 16
"""Crops that are handed over have at most so many pixels for one that the network sees."""

# Bytes of the images that are resized together, with the weights that this takes beside them.
_GROUP = 128 << 20
_PER_PIXEL = 60
_NARROWEST = 256  # what is not resized in height yet is as wide as the network's images
_BRIGHTNESS, _HUE = 0, 3  # of the four changes that torchvision's ColorJitter orders


class Draw(NamedTuple):
    """An image as it is handed to the device."""

    pixels: Tensor
    """(3, h, w), uint8"""
    numbers: list[float]
    """what was drawn for it, as many numbers for each"""


class DrawnBatch(NamedTuple):
    """The images of a batch, sorted into groups of similar size."""

    groups: list[Tensor]
    """(n, 3, H, W), uint8, each as large as the largest of its images"""
    numbers: Tensor
    """height and width of each image in its group, then what was drawn for it, (N, 2 + K), float64"""
    order: Tensor
    """where in the groups the images of the batch stand, (N,), int64"""

    def to(self, device: torch.device, *, non_blocking: bool) -> "DrawnBatch":
        """Send everything to a device, without waiting for it if `non_blocking`."""
        groups = [group.to(device, non_blocking=non_blocking) for group in self.groups]
        numbers, order = (part.to(device, non_blocking=non_blocking) for part in (self.numbers, self.order))
        return DrawnBatch(groups, numbers, order)

    def each(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Return the images of each group, their sizes (n, 2), and what was drawn for them (n, K)."""
        numbers = torch.split(self.numbers, [len(group) for group in self.groups])
        for group, rows in zip(self.groups, numbers, strict=True):
            yield group, rows[:, :2], rows[:, 2:]

    def in_order(self, images: Sequence[Tensor]) -> Tensor:
        """Put what was made of the groups together, in the order of the batch."""
        return torch.cat(list(images)).index_select(0, self.order)


class Halves(Protocol):
    """An augmentation in two halves."""

    def __call__(self, image: Tensor) -> Draw:
        """Draw for pixels (3, H, W), uint8, from torch's generator."""
        ...

    def finish(self, batch: DrawnBatch) -> Tensor:
        """Return images uint8 (N, 3, S, S) on the device on which the batch lies."""
        ...


class CropAndColour:
    """The level `standard`: a random crop, mirrored or not, with other light and colour."""

    def __init__(
        self, crop: v2.RandomResizedCrop, colour: LightAndColour, preprocessing: Preprocessing
    ) -> None:
        self._crop, self._colour = crop, colour
        self._size, self._interpolation = preprocessing.image_size, preprocessing.interpolation

    def __call__(self, image: Tensor) -> Draw:
        """Cut the crop out; one that is far larger than needed is resized here already, to the same bits."""
        box = self._crop.make_params([image])
        top, left, height, width = box["top"], box["left"], box["height"], box["width"]
        flipped = float(torch.rand(1) < 0.5)
        drawn = self._colour.drawn.make_params([image])
        names = ("brightness_factor", "contrast_factor", "saturation_factor")
        numbers = [flipped]
        for number in drawn["fn_idx"].tolist():
            if number != _HUE:
                factor = drawn[names[number]]
                shares = [0.0, 0.0, 0.0]
                if number != _BRIGHTNESS:
                    shares[number] = 1.0 - factor
                numbers += torch.tensor([factor, *shares], dtype=torch.float32).tolist()
        pixels = image[:, top : top + height, left : left + width]
        if height * width > LARGEST * self._size**2:
            size, how = [self._size, self._size], self._crop.interpolation
            pixels = functional.resize(pixels, size, interpolation=how, antialias=True)
        return Draw(pixels, numbers)

    def finish(self, batch: DrawnBatch) -> Tensor:
        """Resize, mirror and colour."""
        return batch.in_order(
            [
                vary_colours(
                    resize(group, sizes, drawn[:, 0] > 0, self._size, self._interpolation),
                    torch.unflatten(drawn[:, 1:], 1, (3, 4)),
                )
                for group, sizes, drawn in batch.each()
            ]
        )


class Nudged:
    """The level `light`: the view of evaluation, made where images are loaded, and moved on the device."""

    def __init__(self, shown: Sequence[nn.Module], nudge: RandomNudge) -> None:
        self._shown, self._nudge = shown, nudge

    def __call__(self, image: Tensor) -> Draw:
        """Resize and crop as evaluation does, and draw how the image is moved."""
        for step in self._shown:
            image = step(image)
        return Draw(image, [number for row in self._nudge.draw() for number in row])

    def finish(self, batch: DrawnBatch) -> Tensor:
        """Turn, shift and scale."""
        return batch.in_order(
            [move(group, torch.unflatten(drawn, 1, (2, 3))) for group, _, drawn in batch.each()]
        )


@dataclass(frozen=True, kw_only=True)
class DrawTransform(Transform):
    """A transform of which the device does the second half."""

    halves: Halves

    def __call__(self, image: Image.Image | Tensor) -> Draw:  # type: ignore[override]
        """Return what is handed to the device of an RGB image, or of its pixels uint8 (3, H, W)."""
        return self.halves(functional.pil_to_tensor(image) if isinstance(image, Image.Image) else image)


def device_transform(level: Augment, preprocessing: Preprocessing) -> Transform:
    """Build the transform for training, of which the device does the second half.

    `none` varies nothing, and is as ever. A level that is not in `ON_DEVICE` must not come here.
    """
    whole = train_transform(level, preprocessing)
    steps: list[Any] = list(whole.steps.transforms)[1:]  # without the one that makes a tensor
    halves: Halves
    match level:
        case "none":
            return whole
        case "light":
            halves = Nudged(steps[:-1], steps[-1])
        case "standard":
            halves = CropAndColour(steps[0], steps[-1], preprocessing)
        case _:
            raise AssertionError(level)
    return DrawTransform(whole.steps, whole.shrink_to, halves=halves)


def pack(draws: Sequence[Draw]) -> DrawnBatch:
    """Put the images of a batch together, so that those which are resized together fill their group well."""
    order = sorted(range(len(draws)), key=lambda row: (draws[row].pixels.shape[-2:], row))
    groups, begun = list[Tensor](), list[Draw]()
    for row in order:
        if begun and _bytes([*begun, draws[row]]) > _GROUP:
            groups.append(_padded(begun))
            begun = []
        begun.append(draws[row])
    groups.append(_padded(begun))
    numbers = [[*draws[row].pixels.shape[-2:], *draws[row].numbers] for row in order]
    places = torch.empty(len(order), dtype=torch.int64)
    places[torch.tensor(order)] = torch.arange(len(order))
    return DrawnBatch(groups, torch.tensor(numbers, dtype=torch.float64), places)


def _largest(draws: Sequence[Draw]) -> tuple[int, int]:
    height, width = (max(sides) for sides in zip(*(draw.pixels.shape[-2:] for draw in draws), strict=True))
    return height, width


def _bytes(draws: Sequence[Draw]) -> int:
    height, width = _largest(draws)
    return len(draws) * _PER_PIXEL * height * max(width, _NARROWEST)


def _padded(draws: Sequence[Draw]) -> Tensor:
    images = torch.zeros(len(draws), 3, *_largest(draws), dtype=torch.uint8)
    for image, draw in zip(images, draws, strict=True):
        height, width = draw.pixels.shape[-2:]
        image[:, :height, :width] = draw.pixels
    return images
