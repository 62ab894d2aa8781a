import pickle
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms._presets import ImageClassification

from finetune.choices import Augment
from finetune.data.loading.transforms import LightAndColour, RandomNudge, eval_transform, train_transform
from finetune.model.preprocessing import Preprocessing

LEVELS = get_args(Augment)


def preprocessing(image_size=64, resize_size=73, interpolation="bilinear"):
    return Preprocessing(image_size, resize_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), interpolation)


def photo(width=125, height=94, seed=0):
    """Draw coarse noise with a gradient, so that every crop of it differs."""
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8))
    return noise.resize((width, height), Image.Resampling.BICUBIC)


def drawn(transform, image, seed):
    torch.manual_seed(seed)
    return transform(image)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(125, 94), (94, 125), (400, 300), (30, 40), (73, 73)])
def test_evaluation_equals_the_preset_of_the_weights(interpolation, size):
    image = photo(*size)
    preset = ImageClassification(
        crop_size=64,
        resize_size=73,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=InterpolationMode(interpolation),
    )
    ours = eval_transform(preprocessing(interpolation=interpolation))(image)
    assert (ours.dtype, ours.shape) == (torch.uint8, (3, 64, 64))
    # Nearest takes other pixels from a PIL image than from a tensor; the preset documents both.
    source = image if interpolation != "nearest" else torch.from_numpy(np.array(image)).permute(2, 0, 1)
    theirs = preset(source) * 255
    assert (ours.float() - theirs).abs().max() <= 1.001


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [(125, 94), (8, 8), (1, 1), (3, 200)])
def test_training_gives_pixels_of_the_size_of_the_model(level, size):
    for seed in range(8):
        image = drawn(train_transform(level, preprocessing()), photo(*size), seed)
        assert (image.dtype, image.shape) == (torch.uint8, (3, 64, 64))


@pytest.mark.parametrize("level", LEVELS)
def test_all_randomness_comes_from_the_seed_of_torch(level):
    transform, image = train_transform(level, preprocessing()), photo()
    for seed in range(5):
        np.random.seed(seed)
        assert torch.equal(drawn(transform, image, seed), drawn(transform, image, seed))


@pytest.mark.parametrize("level", LEVELS[1:])
def test_seeds_give_different_pictures(level):
    transform, image = train_transform(level, preprocessing()), photo()
    first = drawn(transform, image, 0)
    assert all(not torch.equal(first, drawn(transform, image, seed)) for seed in range(1, 6))


@pytest.mark.parametrize("size", [(64, 64), (33, 7), (1, 1), (97, 131)])
def test_light_and_colour_vary_as_torchvision_varies_them(size):
    ours, theirs = LightAndColour(0.2), v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator).permute(2, 0, 1)
        image = image if seed % 2 else image.contiguous()
        before = image.clone()
        assert torch.equal(drawn(ours, image, seed), drawn(theirs, image, seed))
        assert torch.equal(image, before)


def test_no_augmentation_is_the_evaluation_transform():
    expected = eval_transform(preprocessing())(photo())
    assert torch.equal(drawn(train_transform("none", preprocessing()), photo(), 0), expected)


def left_to_right(image):
    """Tell on which side a picture is bright: above zero for the right."""
    width = image.shape[-1] // 2
    return (image[..., width:].float().mean() - image[..., :width].float().mean()).item()


@pytest.mark.parametrize(
    ("level", "mirrored"), [("light", False), ("standard", True), ("trivial", True), ("randaugment", True)]
)
def test_only_light_never_mirrors(level, mirrored):
    ramp = Image.linear_gradient("L").rotate(90).convert("RGB")
    sides = [
        left_to_right(drawn(train_transform(level, preprocessing()), ramp, seed)) > 0 for seed in range(40)
    ]
    assert len(set(sides)) == (2 if mirrored else 1)


def has_an_erased_patch(pixels):
    """Tell whether an image of one colour holds one black rectangle that its border does not touch.

    What turning or shearing leaves black lies at the border, so it is not counted.
    """
    black = (pixels == 0).all(dim=0)
    rows, columns = black.any(dim=1).nonzero().flatten(), black.any(dim=0).nonzero().flatten()
    if not len(rows) or {0, 63} & {*rows.tolist(), *columns.tolist()}:
        return False
    return bool(black[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())


@pytest.mark.parametrize(
    ("level", "policy"), [("randaugment", v2.RandAugment), ("trivial", v2.TrivialAugmentWide)]
)
def test_a_policy_is_torchvisions_after_a_crop_and_a_flip(level, policy):
    settings = preprocessing()
    torch.manual_seed(5)
    ours = train_transform(level, settings)(photo())
    torch.manual_seed(5)
    crop = v2.RandomResizedCrop(64, scale=(0.35, 1.0), antialias=True)
    steps = v2.Compose([v2.PILToTensor(), crop, v2.RandomHorizontalFlip()])
    theirs = policy(interpolation=InterpolationMode.BILINEAR)(steps(photo()))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("level", "least", "most"), [("standard", 0, 0), ("strong", 0.08, 0.25)])
def test_only_strong_erases_a_patch_of_up_to_a_quarter_of_the_images(level, least, most):
    transform, grey = train_transform(level, preprocessing()), Image.new("RGB", (80, 80), (128, 128, 128))
    erased = [has_an_erased_patch(drawn(transform, grey, seed)) for seed in range(300)]
    assert least <= sum(erased) / len(erased) <= most


def test_a_nudge_moves_a_little_and_draws_no_border():
    nudge = RandomNudge(degrees=8, shift=0.06, scale=(0.9, 1.1))
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    dot = torch.zeros(3, 65, 65, dtype=torch.uint8)
    dot[:, 31:34, 31:34] = 255
    for seed in range(30):
        torch.manual_seed(seed)
        assert (nudge(white) == 255).all()
        weight = nudge(dot)[0].double()
        weight /= weight.sum()
        position = torch.arange(65, dtype=torch.double)
        centre = torch.stack([(weight.sum(1) * position).sum(), (weight.sum(0) * position).sum()])
        assert (centre - 32).abs().max() <= 0.06 * 65 * 1.1 + 0.5


def test_a_nudge_by_nothing_changes_nothing():
    nudge = RandomNudge(degrees=0, shift=0, scale=(1, 1))
    image = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    assert torch.equal(nudge(image), image)


def test_big_photos_keep_twice_the_pixels_that_evaluation_needs():
    assert {train_transform(level, preprocessing()).shrink_to for level in LEVELS} == {146}
    assert eval_transform(preprocessing()).shrink_to == 146


def test_transforms_can_be_sent_to_worker_processes():
    for level in LEVELS:
        transform = train_transform(level, preprocessing())
        copy = pickle.loads(pickle.dumps(transform))
        assert torch.equal(drawn(copy, photo(), 3), drawn(transform, photo(), 3))
