"""Our resize and crop for exported files: torchvision's, to the bit."""

import random

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from finetune.model.resize import resize_and_crop_pixels

SIZES = [
    (146, 146), (146, 300), (300, 146), (147, 151), (17, 40), (3, 9), (1, 1), (300, 201), (997, 64),
    (64, 1001), (375, 500), (500, 375), (128, 129), (255, 256),
]  # fmt: skip


def torchvisions(pixels, resize_to, crop_to, how):
    steps = [
        v2.Resize(resize_to, interpolation=InterpolationMode(how), antialias=True),
        v2.CenterCrop(crop_to),
    ]
    return v2.Compose(steps)(pixels)


def random_pixels(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("how", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("resize_to", "crop_to"), [(146, 128), (64, 64), (65, 60), (33, 31)])
def test_it_is_torchvisions_to_the_bit(how, resize_to, crop_to):
    for height, width in SIZES:
        pixels = random_pixels(height, width)
        ours = resize_and_crop_pixels(pixels, resize_to=resize_to, crop_to=crop_to, how=how)
        assert torch.equal(ours, torchvisions(pixels, resize_to, crop_to, how)), (height, width)


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_black_and_white_stay_in_range(how):
    """A bicubic filter overshoots at edges."""
    board = (torch.arange(90)[:, None] // 9 + torch.arange(120)[None, :] // 7) % 2 * 255
    pixels = board.to(torch.uint8).expand(1, 3, 90, 120)
    ours = resize_and_crop_pixels(pixels, resize_to=64, crop_to=60, how=how)
    assert torch.equal(ours, torchvisions(pixels, 64, 60, how))


@pytest.mark.slow
def test_any_size_is_torchvisions_to_the_bit():
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(300):
        height, width = draw.randint(1, 900), draw.randint(1, 900)
        resize_to = draw.randint(8, 300)
        crop_to, how = draw.randint(1, resize_to), draw.choice(["bilinear", "bicubic", "nearest"])
        pixels = random_pixels(height, width, seed)
        ours = resize_and_crop_pixels(pixels, resize_to=resize_to, crop_to=crop_to, how=how)
        assert torch.equal(ours, torchvisions(pixels, resize_to, crop_to, how)), (
            height,
            width,
            resize_to,
            crop_to,
        )
