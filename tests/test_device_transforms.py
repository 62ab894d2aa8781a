import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from finetune.data.loading.device_transforms import move, resize, vary_colours
from finetune.data.loading.transforms import LightAndColour, RandomNudge

# Where torch resizes bytes as such; elsewhere it resizes floats, and rounds once instead of twice.
EXACT = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
SHAPES = [(1, 1), (1, 50), (37, 53), (64, 64), (4000, 30), (30, 4000), (3, 2), (201, 331)]


def noise(*shape, seed=0):
    return torch.randint(
        0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def difference(one, other):
    return int((one.int() - other.int()).abs().max())


def resized(images, size, interpolation, flipped=None):
    """Resize images of several sizes in one batch, beside rubbish where they end."""
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    batch = torch.full((len(images), 3, height, width), 99, dtype=torch.uint8)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    sizes = torch.tensor([image.shape[1:] for image in images], dtype=torch.float64)
    flipped = torch.zeros(len(images), dtype=torch.bool) if flipped is None else flipped
    return resize(batch, sizes, flipped, size, interpolation)


def torchvisions(image, size, interpolation):
    return functional.resize(
        image, [size, size], interpolation=InterpolationMode(interpolation), antialias=True
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [64, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_is_resized_as_torchvision_resizes_it(shape, size, interpolation):
    image = noise(*shape)
    ours = resized([image], size, interpolation)[0]
    assert (ours.dtype, ours.shape) == (torch.uint8, (3, size, size))
    assert difference(ours, torchvisions(image, size, interpolation)) <= (0 if EXACT else 1)


def test_what_lies_beside_an_image_in_its_batch_changes_nothing():
    images = [noise(*shape) for shape in [(1, 1), (90, 31), (37, 53), (64, 64)]]
    alone = torch.cat([resized([image], 32, "bilinear") for image in images])
    assert torch.equal(resized(images, 32, "bilinear"), alone)


def test_only_those_images_are_mirrored_that_are_to_be():
    images = [noise(40, 50), noise(30, 20)]
    straight = resized(images, 24, "bilinear")
    some = resized(images, 24, "bilinear", torch.tensor([False, True]))
    assert torch.equal(some[0], straight[0])
    assert torch.equal(some[1], straight[1].flip(-1))


def test_colours_are_those_of_each_image_alone():
    """For three orders of the changes, with factors that make bytes overflow."""
    images = torch.stack([noise(48, 48, seed=seed) for seed in range(3)])
    factors = {0: 1.2, 1: 0.83, 2: 1.17}
    orders, rows, expected = [(0, 1, 2), (2, 0, 1), (1, 2, 0)], [], []
    for image, order in zip(images, orders, strict=True):
        for number in order:
            image = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)[
                number
            ](image, factors[number])
        expected.append(image)
        shares = [
            [0.0, *(1.0 - factors[number] if place == number else 0.0 for place in (1, 2))]
            for number in order
        ]
        rows.append([[factors[number], *share] for number, share in zip(order, shares, strict=True)])
    changes = torch.tensor(rows, dtype=torch.float32).double()
    ours = vary_colours(images, changes)
    assert difference(ours, torch.stack(expected)) <= 1
    assert not torch.equal(ours, images)


def test_colours_of_one_image_are_those_of_the_transform():
    image = noise(64, 64)
    for seed in range(8):
        torch.manual_seed(seed)
        drawn = LightAndColour(0.2).drawn.make_params([image])
        names = ("brightness_factor", "contrast_factor", "saturation_factor")
        rows = []
        for number in (number for number in drawn["fn_idx"].tolist() if number < 3):
            factor = drawn[names[number]]
            rows.append([factor, 0.0, *((1.0 - factor) * (number == place) for place in (1, 2))])
        torch.manual_seed(seed)
        expected = LightAndColour(0.2)(image)
        ours = vary_colours(image[None], torch.tensor([rows], dtype=torch.float32).double())[0]
        assert difference(ours, expected) <= (0 if EXACT else 1)


def test_images_are_moved_as_each_alone():
    nudge = RandomNudge(degrees=8, shift=0.06, scale=(0.9, 1.1))
    images = torch.stack([noise(33, 33, seed=seed) for seed in range(5)])
    expected, thetas = [], []
    for seed, image in enumerate(images):
        torch.manual_seed(seed)
        expected.append(nudge(image))
        torch.manual_seed(seed)
        thetas.append(nudge.draw())
    assert difference(move(images, torch.tensor(thetas, dtype=torch.float64)), torch.stack(expected)) <= 1
