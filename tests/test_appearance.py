"""How bright, sharp and full of detail pictures are, whatever their size."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from finetune.data.images.appearance import judge_appearance


def photo(width=400, height=300):
    """Return a grey picture of soft shapes with sharp edges, and a little noise."""
    y, x = np.mgrid[:height, :width] / height
    random = np.random.default_rng(0)
    grey = 110 + 60 * np.sin(7 * x) * np.cos(5 * y) + 60 * (((x - 0.6) ** 2 + (y - 0.5) ** 2) < 0.06)
    return Image.fromarray((grey + random.normal(0, 8, grey.shape)).clip(0, 255).astype(np.uint8))


def test_one_grey_holds_nothing():
    look = judge_appearance(Image.new("L", (50, 40), 51))
    assert (look.brightest, look.darkest, look.information, look.sharpness) == (0.2, 0.2, 0.0, 0.0)


def test_two_levels_in_equal_parts_are_one_bit():
    halves = Image.new("L", (100, 100), 0)
    halves.paste(255, (50, 0, 100, 100))
    look = judge_appearance(halves)
    assert look.information == pytest.approx(1.0)
    assert (look.darkest, look.brightest) == (0.0, 1.0)


def test_brightness_leaves_out_a_few_pixels():
    picture = Image.new("L", (100, 100), 0)
    picture.paste(255, (0, 0, 9, 10))  # 0.9% of it
    assert judge_appearance(picture).brightest == 0
    picture.paste(255, (0, 0, 20, 10))
    assert judge_appearance(picture).brightest == 1


def test_a_picture_of_one_strong_colour_is_not_dark():
    for colour, brightest in (("red", 1.0), ("navy", 128 / 255), ("#100000", 16 / 255)):
        picture = Image.new("RGB", (50, 40), colour)
        look = judge_appearance(picture.convert("L"), picture)
        assert look.brightest == pytest.approx(brightest)


def test_blur_takes_sharpness_and_brightness_does_not():
    sharp = photo()
    sharpness = judge_appearance(sharp).sharpness
    blurred = judge_appearance(sharp.filter(ImageFilter.GaussianBlur(8))).sharpness
    darker = judge_appearance(sharp.point(lambda value: value // 3)).sharpness
    assert blurred < sharpness / 4
    assert darker == pytest.approx(sharpness, rel=0.25)


def test_the_same_picture_in_another_size_is_judged_alike():
    small, large = judge_appearance(photo(400, 300)), judge_appearance(photo(1600, 1200))
    assert large.brightest == pytest.approx(small.brightest, abs=0.03)
    assert large.information == pytest.approx(small.information, abs=0.4)


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 1)])
def test_tiny_and_slim_pictures_have_numbers(size):
    look = judge_appearance(Image.new("L", size, 200))
    assert look.sharpness == 0
    assert look.brightest == pytest.approx(200 / 255)
