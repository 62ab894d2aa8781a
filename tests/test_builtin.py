import json
import os
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretrain_glyphs
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file

from finetune.data.builtin import digits

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "finetune" / "data" / "builtin" / "glyphs.safetensors"
SCRIPT = ROOT / "scripts" / "pretrain_glyphs.py"


@pytest.fixture(scope="module")
def unseen_glyphs():
    return pretrain_glyphs.load_glyphs(pretrain_glyphs.HELD_OUT_FONTS)


@pytest.fixture(scope="module")
def metadata() -> dict[str, str]:
    with safe_open(WEIGHTS, "pt") as file:
        return dict(file.metadata())


@pytest.fixture(scope="module")
def model(metadata: dict[str, str]) -> torch.nn.Module:
    classes = json.loads(metadata["classes"])
    model = torchvision.models.get_model(metadata["arch"], weights=None, num_classes=len(classes))
    model.load_state_dict(load_file(WEIGHTS), strict=True)
    return model.eval()


def test_weights_load_strictly_into_the_architecture_they_name(model, metadata):
    assert model.fc.out_features == len(json.loads(metadata["classes"]))


def test_weights_are_small_finite_float32():
    assert WEIGHTS.stat().st_size <= 3_000_000
    for name, tensor in load_file(WEIGHTS).items():
        assert tensor.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float32), name
        assert tensor.isfinite().all(), name


def test_weights_were_trained_and_not_merely_initialised():
    state = load_file(WEIGHTS)
    steps = {int(tensor) for name, tensor in state.items() if name.endswith("num_batches_tracked")}
    with safe_open(WEIGHTS, "pt") as file:
        assert steps == {json.loads(file.metadata()["recipe"])["steps"]}


def test_weights_have_seen_letters_and_no_digit(metadata):
    classes = json.loads(metadata["classes"])
    assert len(classes) == len(set(classes))
    assert set(classes) <= set(string.ascii_letters)
    assert tuple(classes) == pretrain_glyphs.CLASSES
    # Every letter that is drawn is one of the classes, by itself or through its capital.
    assert {pretrain_glyphs.LOOKALIKES.get(letter, letter) for letter in string.ascii_letters} == set(classes)


def test_metadata_say_how_to_prepare_an_image(unseen_glyphs, metadata):
    preprocessing = json.loads(metadata["preprocessing"])
    assert set(preprocessing) == {"image_size", "resize_size", "mean", "std", "interpolation"}
    assert preprocessing["image_size"] == preprocessing["resize_size"] == pretrain_glyphs.IMAGE_SIZE
    assert preprocessing["interpolation"] == "bilinear"
    mean, std = pretrain_glyphs.grey_statistics(unseen_glyphs, seed=7)
    assert preprocessing["mean"] == pytest.approx([mean] * 3, abs=0.05)
    assert preprocessing["std"] == pytest.approx([std] * 3, abs=0.05)


def test_metadata_say_how_the_weights_were_made(metadata):
    recipe = json.loads(metadata["recipe"])
    assert (ROOT / recipe["command"].split()[1]).samefile(SCRIPT)
    assert {"steps", "batch_size", "lr", "seed", "threads"} <= set(recipe)
    assert set(recipe["versions"]) == {"torch", "torchvision", "matplotlib", "pillow"}
    assert tuple(recipe["fonts"]) == pretrain_glyphs.TRAINING_FONTS
    assert not set(recipe["fonts"]) & set(recipe["held_out_fonts"])
    assert all(0.8 < figure <= 1 for figure in recipe["accuracy"].values())
    assert "fonts" in metadata["licence"]


def test_weights_recognise_letters_of_fonts_they_have_not_seen(unseen_glyphs, model, metadata):
    preprocessing = json.loads(metadata["preprocessing"])
    images, targets = pretrain_glyphs.draw_letters(unseen_glyphs, 256, seed=7)
    prepared = pretrain_glyphs.prepare(images, preprocessing["mean"][0], preprocessing["std"][0])
    assert pretrain_glyphs.accuracy(model, prepared, targets) > 0.7  # chance is 1 in 41


def test_letters_look_like_the_digits(unseen_glyphs):
    letters, _ = pretrain_glyphs.draw_letters(unseen_glyphs, 512, seed=7)
    images, _ = digits.load_digits()
    assert letters.dtype == torch.uint8
    assert letters.shape[1:] == images.shape[1:]
    assert set(letters.unique().tolist()) == set(np.unique(images).tolist())
    assert letters.float().mean().item() == pytest.approx(images.mean(), rel=0.25)


def test_letters_depend_on_the_seed_alone(unseen_glyphs):
    first, targets = pretrain_glyphs.draw_letters(unseen_glyphs, 32, seed=3)
    torch.rand(5)  # history must not matter
    again, targets_again = pretrain_glyphs.draw_letters(unseen_glyphs, 32, seed=3)
    other, _ = pretrain_glyphs.draw_letters(unseen_glyphs, 32, seed=4)
    assert torch.equal(first, again)
    assert torch.equal(targets, targets_again)
    assert not torch.equal(first, other)


@pytest.mark.slow
def test_pretraining_twice_gives_the_same_weights(tmp_path):
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for file in files:
        command = [sys.executable, SCRIPT, "--steps", "3", "--batch-size", "16", "--out", file]
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True
        )
    # Not the bytes of the files: safetensors writes the metadata in any order.
    first, second = (load_file(file) for file in files)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_digits_are_1797_images_of_ten_classes():
    images, targets = digits.load_digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert targets.shape == (1797,)
    assert tuple("0123456789") == digits.CLASS_NAMES
    assert set(targets.tolist()) == set(range(len(digits.CLASS_NAMES)))


def test_digits_keep_all_seventeen_greys_apart():
    from sklearn.datasets import load_digits

    images, _ = digits.load_digits()
    counts = load_digits().images
    assert np.array_equal(np.rint(images / 255 * 16), counts)


def test_digits_are_light_on_dark():
    images, _ = digits.load_digits()
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.mean() < images.mean() / 4


def test_digits_cannot_be_changed_for_the_next_reader():
    images, targets = digits.load_digits()
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        targets[0] = 1


def test_sample_names_are_stable_unique_and_tell_the_class():
    _, targets = digits.load_digits()
    names = digits.sample_names()
    assert names[:3] == ["digits/0000-0", "digits/0001-1", "digits/0002-2"]
    assert names[-1] == "digits/1796-8"
    assert len(set(names)) == 1797
    assert [int(name[-1]) for name in names] == targets.tolist()


def test_digit_image_is_the_sample_as_rgb():
    images, _ = digits.load_digits()
    image = digits.digit_image(17)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    assert np.array_equal(np.asarray(image), np.repeat(images[17][:, :, None], 3, axis=2))
