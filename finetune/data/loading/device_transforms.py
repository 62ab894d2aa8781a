"""What augmentation does to the pixels of a batch, on any device: resizing, mirroring, colours, small moves.

The numbers are those of the transforms that vary one image after another on a CPU. Images are resized as
torch resizes bytes with antialiasing: first all columns, then all rows, by weights that are whole numbers,
and with bytes between the two. The sums of whole numbers that it takes are exact in float32, and in TF32, so
that neither the device nor how a batch is divided changes a bit. Nothing here reads a value or waits.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from finetune.choices import Interpolation

_MOST_BITS, _WEIGHT = 22, 1 << 15  # of torch's weights: bits behind the point, and what they are less than
_PART = 256  # weights are taken apart into two numbers of eight bits
_CUBIC = -0.5  # the a of Keys' cubic where it is antialiased

_GREY: list[float] = torch.tensor([0.2989, 0.587, 0.114]).tolist()  # as float32 has them


def resize(pixels: Tensor, sizes: Tensor, flipped: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resize images of different sizes to squares, and mirror some of them.

    Args:
        pixels: (N, 3, H, W), uint8; of each image the upper left corner counts.
        sizes: height and width of that corner, (N, 2), float64.
        flipped: which images are mirrored, (N,), bool.
        size: side S of the squares.
        interpolation: `bilinear` or `bicubic`, with antialiasing.

    Returns:
        (N, 3, S, S), uint8.
    """
    height, width = pixels.shape[-2:]
    columns = _weights(sizes[:, 1], width, size, interpolation)
    narrow = _apply(columns.mT, pixels, last=True)
    rows = _weights(sizes[:, 0], height, size, interpolation)
    resized = _apply(rows, narrow, last=False)
    return torch.where(flipped.view(-1, 1, 1, 1), resized.flip(-1), resized)


def _weights(lengths: Tensor, longest: int, size: int, interpolation: Interpolation) -> Tensor:
    """Return how much each pixel of lengths (N,) counts for each of `size`, (N, size, longest), float64."""
    scale = (lengths / size).view(-1, 1, 1)
    wide = scale.clamp(min=1.0)
    reach = (1.0 if interpolation == "bilinear" else 2.0) * wide
    places = torch.arange(size, device=lengths.device, dtype=torch.float64).view(1, -1, 1)
    pixels = torch.arange(longest, device=lengths.device, dtype=torch.float64)
    centre = scale * (places + 0.5)
    first = (centre - reach + 0.5).trunc().clamp(min=0)
    end = torch.minimum((centre + reach + 0.5).trunc(), lengths.view(-1, 1, 1))
    distance = ((pixels - centre + 0.5) / wide).abs()
    weights = _triangle(distance) if interpolation == "bilinear" else _cubic(distance)
    weights = weights * ((pixels >= first) & (pixels < end))
    return weights / weights.sum(-1, keepdim=True)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Return Keys' cubic (1981) of distances ≥ 0."""
    a, x = _CUBIC, distance
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _apply(weights: Tensor, pixels: Tensor, *, last: bool) -> Tensor:
    """Multiply bytes (N, 3, H, W) with weights, of columns if `last`, else of rows; round to bytes."""
    largest = weights.amax((1, 2), keepdim=True)
    powers = 1 << torch.arange(1, _MOST_BITS + 1, device=weights.device, dtype=torch.int32)
    bits = ((0.5 + largest * powers).trunc() < _WEIGHT).sum(-1, dtype=torch.int32).view(-1, 1, 1, 1)
    scaled = weights * (1 << bits).squeeze(1)
    # Rounded away from zero, as C does it.
    whole = (scaled.abs() + 0.5).floor().copysign(scaled)
    upper = (whole / _PART).floor()
    parts, numbers = [upper.float(), (whole - upper * _PART).float()], pixels.float()
    if last:  # the rows of all three colours in one matrix
        products = [torch.unflatten(numbers.flatten(1, 2) @ part, 1, (3, -1)) for part in parts]
    else:
        products = [part.unsqueeze(1) @ numbers for part in parts]
    high, low = (product.to(torch.int32) for product in products)
    rounded: Tensor = (high * _PART + low + (1 << (bits - 1))) >> bits
    return rounded.clamp(0, 255).to(torch.uint8)


def vary_colours(images: Tensor, changes: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of each image, in its own order.

    Each change is a factor for the pixels, and a share of something else that is added: nothing, the mean
    grey level, or the grey image. After each, what is behind the point is cut off.

    Args:
        images: (N, 3, H, W), uint8.
        changes: (N, K, 4), for each of K changes the factor, the share of nothing (which is not read), of the
            mean and of the grey image.
    """
    pixels = images.float()
    for factor, _, of_mean, of_grey in (change.unbind(1) for change in changes.unbind(1)):
        grey = _grey(pixels)
        # Sums of whole numbers are exact in float64, in whatever order a device adds them up.
        mean = (grey.double().sum((1, 2, 3), keepdim=True) / grey[0].numel()).float()
        pixels = pixels * _each(factor).float()
        pixels = _add(_add(pixels, mean, _each(of_mean)), grey, _each(of_grey))
        pixels = pixels.clamp(0, 255).floor()
    return pixels.to(torch.uint8)


def _each(numbers: Tensor) -> Tensor:
    return numbers.view(-1, 1, 1, 1)


def _add(pixels: Tensor, more: Tensor, share: Tensor | float) -> Tensor:
    """Add a share of something and round once, as a CPU's fused multiplication and addition does."""
    return (pixels.double() + more.double() * share).float()


def _grey(pixels: Tensor) -> Tensor:
    """Return whole grey levels (N, 1, H, W) of pixels (N, 3, H, W), float32."""
    red, green, blue = torch.split(pixels, 1, dim=1)
    return _add(_add(red * _GREY[0], green, _GREY[1]), blue, _GREY[2]).floor()


def move(images: Tensor, theta: Tensor) -> Tensor:
    """Turn, shift and scale images (N, 3, H, W), uint8, by matrices (N, 2, 3) as `affine_grid` takes them.

    What comes in at the border continues its edge.
    """
    grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return moved.round().to(torch.uint8)
