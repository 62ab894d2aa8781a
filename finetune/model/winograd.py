"""Convolutions of 3 × 3 pixels that train on a CPU with about a quarter of the multiplications.

Winograd's F(4 × 4, 3 × 3), from Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016): 36
sums of a tile of 6 × 6 pixels are multiplied with 36 sums of a filter, and sums of the products are 4 × 4
pixels of the output. Over all tiles and channels the products are those of 36 pairs of matrices.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_FEWEST_CHANNELS = 128  # of fewer, the sums take as long as is gained by their products
_FEWEST_TILES = 64  # of fewer, the sums of the filters do
_MOST_WASTE = 1.55  # pixels of all tiles, as a multiple of the images' own
_TILES_AT_ONCE = 256  # their sums stay in a processor's caches

_PIXELS = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_FILTERS = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24.0]], dtype=torch.float64
)
_PRODUCTS = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1.0]],
    dtype=torch.float64,
)
OF_PIXELS, OF_FILTERS, OF_PRODUCTS = (torch.kron(one, one) for one in (_PIXELS, _FILTERS / 24, _PRODUCTS))
"""Which sums: (36, 36) of the pixels of a tile, (36, 9) of those of a filter, (16, 36) of the products."""


class _Tiling(NamedTuple):
    """How images (N, C, height, width) are cut into tiles, each for 4 × 4 pixels of the output."""

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def of(cls, images: Tensor) -> "_Tiling":
        """Return that of some images."""
        height, width = images.shape[2:]
        return cls(height, width, -(-height // 4), -(-width // 4))

    @property
    def waste(self) -> float:
        """Pixels of all tiles, as a multiple of the images' own."""
        return 16 * self.rows * self.columns / (self.height * self.width)

    def parts(self, images: Tensor, outputs: int) -> Iterator[slice]:
        """Yield images to be computed at once: of some hundred tiles, of more where the filters are large."""
        wanted = max(_TILES_AT_ONCE, outputs)
        size = max(1, wanted // (self.rows * self.columns))
        for first in range(0, len(images), size):
            yield slice(first, first + size)


def suits_winograd(weight: Tensor) -> bool:
    """Tell whether filters (K, C, h, w) may gain, where MKL multiplies the matrices."""
    wide = weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= _FEWEST_CHANNELS
    return wide and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]


def gains_by_winograd(images: Tensor, weight: Tensor) -> bool:
    """Tell whether images (N, C, H, W) and filters (K, C, 3, 3) in one group train sooner this way."""
    learns = torch.is_grad_enabled() and (images.requires_grad or weight.requires_grad)
    if not learns or not suits_winograd(weight) or images.ndim != 4 or images.numel() == 0:
        return False
    in_float32 = images.dtype == weight.dtype == torch.float32
    tiling = _Tiling.of(images)
    return (
        in_float32
        and images.is_contiguous(memory_format=torch.channels_last)
        and tiling.waste <= _MOST_WASTE
        and len(images) * tiling.rows * tiling.columns >= _FEWEST_TILES
    )


class WinogradConvolution(torch.autograd.Function):
    """A convolution with filters of 3 × 3 on every pixel, and zeros around the images.

    Sums of pixels are made a few images at a time, and again for the gradients: no more is kept than torch
    keeps. In float32 its results are within 3e-6 of the exact ones, where torch's are within 1e-6.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve images (N, C, H, W) with filters (K, C, 3, 3) into (N, K, H, W), and add the bias (K,)."""
        ctx.save_for_backward(images, weight)
        tiling, filters = _Tiling.of(images), _filter_sums(weight)
        # No view of another tensor: the layer behind may overwrite it.
        output = torch.empty(
            (len(images), len(weight), tiling.height, tiling.width),
            dtype=images.dtype,
            memory_format=torch.channels_last,
        )
        pixels = output.permute(0, 2, 3, 1)
        for part in tiling.parts(images, len(weight)):
            products = torch.bmm(_pixel_sums(images[part], tiling), filters.transpose(1, 2))
            _put_tiles(_matrix(OF_PRODUCTS, products) @ products.view(36, -1), pixels[part], tiling)
        if bias is not None:
            pixels += bias
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of images, filters and bias, from that of the output."""
        images, weight = ctx.saved_tensors
        tiling, filters = _Tiling.of(images), _filter_sums(weight)
        of_images = torch.empty_like(images) if ctx.needs_input_grad[0] else None
        of_sums = filters.new_zeros(filters.shape) if ctx.needs_input_grad[1] else None
        for part in tiling.parts(images, len(weight)):
            of_products = _product_gradients(gradient[part], tiling)
            if of_sums is not None:
                of_sums.baddbmm_(of_products.transpose(1, 2), _pixel_sums(images[part], tiling))
            if of_images is not None:
                of_pixels = torch.bmm(of_products, filters)
                _add_tiles(_matrix(OF_PIXELS, of_pixels).T @ of_pixels.view(36, -1), of_images[part], tiling)
        of_filters = None if of_sums is None else _filter_gradient(of_sums)
        of_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_images, of_filters, of_bias


def _matrix(sums: Tensor, like: Tensor) -> Tensor:
    """Return one of the three matrices in a tensor's precision."""
    return sums.to(like.dtype)


def _filter_sums(weight: Tensor) -> Tensor:
    """Return the sums of filters (K, C, 3, 3), as (36, K, C)."""
    outputs, inputs = weight.shape[:2]
    pixels = weight.permute(0, 2, 3, 1).reshape(outputs, 9, inputs)
    return torch.bmm(_matrix(OF_FILTERS, weight).expand(outputs, 36, 9), pixels).transpose(0, 1)


def _filter_gradient(of_sums: Tensor) -> Tensor:
    """Return the gradient of filters (K, C, 3, 3) from that of their sums (36, K, C)."""
    _, outputs, inputs = of_sums.shape
    matrix = _matrix(OF_FILTERS, of_sums).T.expand(outputs, 9, 36)
    pixels = torch.bmm(matrix, of_sums.transpose(0, 1))
    return pixels.view(outputs, 3, 3, inputs).permute(0, 3, 1, 2)


def _pixel_sums(images: Tensor, tiling: _Tiling) -> Tensor:
    """Return the sums of the tiles of images (N, C, H, W), as (36, N · rows · columns, C)."""
    n, channels, height, width = images.shape
    padded = images.new_zeros(n, 4 * tiling.rows + 2, 4 * tiling.columns + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = images.permute(0, 2, 3, 1)
    image, row, pixel, _ = padded.stride()
    size = (n, tiling.rows, tiling.columns, 6, 6 * channels)
    tiles = padded.as_strided(size, (image, 4 * row, 4 * pixel, row, 1)).reshape(-1, 36, channels)
    return torch.bmm(_matrix(OF_PIXELS, images).expand(len(tiles), 36, 36), tiles).transpose(0, 1)


def _put_tiles(pixels: Tensor, output: Tensor, tiling: _Tiling) -> None:
    """Write pixels of tiles (16, N · rows · columns · K) into an output (N, H, W, K)."""
    n, height, width, channels = output.shape
    tiles = pixels.view(4, 4, n, tiling.rows, tiling.columns, channels).permute(2, 3, 0, 4, 1, 5)
    if tiling.waste == 1:
        output.view(tiles.shape).copy_(tiles)
        return
    output.copy_(tiles.reshape(n, 4 * tiling.rows, 4 * tiling.columns, channels)[:, :height, :width])


def _product_gradients(gradient: Tensor, tiling: _Tiling) -> Tensor:
    """Return the gradients of the products (36, N · rows · columns, K), from that of the output."""
    n, channels, height, width = gradient.shape
    pixels = gradient.permute(0, 2, 3, 1)
    if tiling.waste != 1:
        pixels = gradient.new_zeros(n, 4 * tiling.rows, 4 * tiling.columns, channels)
        pixels[:, :height, :width] = gradient.permute(0, 2, 3, 1)
    tiles = pixels.reshape(n, tiling.rows, 4, tiling.columns, 4, channels).permute(2, 4, 0, 1, 3, 5)
    products = _matrix(OF_PRODUCTS, gradient).T @ tiles.reshape(16, -1)
    return products.view(36, -1, channels)


def _add_tiles(gradients: Tensor, of_images: Tensor, tiling: _Tiling) -> None:
    """Write gradients of tiles (36, N · rows · columns · C) into that of images (N, C, H, W), summed.

    Of a tile's six rows, four lie in its own place, and two in that of the tile below; so do columns.
    """
    n, channels, height, width = of_images.shape
    tiles = gradients.view(6, 6, n, tiling.rows, tiling.columns, channels)
    padded = of_images.new_zeros(n, tiling.rows + 1, 4, tiling.columns + 1, 4, channels)
    for below in (0, 1):
        for beside in (0, 1):
            rows, columns = slice(below, below + tiling.rows), slice(beside, beside + tiling.columns)
            part = tiles[4 * below : 4 + 2 * below, 4 * beside : 4 + 2 * beside].permute(2, 3, 0, 4, 1, 5)
            padded[:, rows, : 4 - 2 * below, columns, : 4 - 2 * beside] += part
    whole = padded.view(n, 4 * tiling.rows + 4, 4 * tiling.columns + 4, channels)
    of_images.copy_(whole[:, 1 : height + 1, 1 : width + 1].permute(0, 3, 1, 2))
