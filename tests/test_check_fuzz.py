"""Damaged image files by the hundred through `finetune check`, each kind of damage in every format."""

import io
import json
import os
import random
import time

import numpy as np
import pytest
from conftest import draw_images, run_finetune, write_small_config
from PIL import Image

from finetune.data.images import ImageError, ImageLimits, inspect_image, look_at_image, read_image

LIMIT = 4_000_000  # pixels: a damaged header may declare any size

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
VARIANTS = {
    "JPEG": ({"quality": 85}, {"progressive": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
    "PNG": ({}, {"optimize": True}),
    "GIF": ({}, {"save_all": True, "append_images": [Image.new("RGB", (48, 40), "red")]}),
    "WEBP": ({"quality": 80}, {"lossless": True}),
    "TIFF": ({}, {"compression": "tiff_lzw"}),
    "BMP": ({},),
}


def originals():
    """Return encoded pictures of every format, with shapes and noise as photos have."""
    y, x = np.mgrid[0:40, 0:48]
    shading = np.stack([5 * x, 6 * y, 3 * (x + y) % 256], axis=-1)
    pixels = shading + np.random.default_rng(0).integers(-20, 20, (40, 48, 3))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    for format in FORMATS:
        for options in VARIANTS[format]:
            buffer = io.BytesIO()
            picture.save(buffer, format, **options)
            yield format, buffer.getvalue()


def damaged(content, rng):
    """Flip bits, cut, overwrite or insert bytes, most often where the header is."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        place = rng.randrange(min(len(data), rng.choice((32, 600, len(data)))))
        match rng.randrange(6):
            case 0 | 1 | 2:
                data[place] ^= 1 << rng.randrange(8)
            case 3:
                del data[max(place, 1) :]
            case 4:
                data[place : place + 4] = rng.randbytes(4)
            case 5:
                data[place:place] = rng.randbytes(rng.randrange(1, 9))
    return bytes(data)


def check_damaged(folder, number, seed):
    """Put so many damaged files among good ones, check the folder, and judge what comes back."""
    print(f"FUZZ_SEED={seed} ({number} cases)")
    rng = random.Random(seed)
    data = draw_images(folder / "data")
    contents = list(originals())
    names = []
    for i in range(number):
        format, content = contents[i % len(contents)]
        name = f"{('cat', 'dog', 'owl')[i % 3]}/fuzz{i:05}.{format.lower()}"
        (data / name).write_bytes(damaged(content, rng))
        names.append(name)
    started = time.monotonic()
    result = run_finetune("check", write_small_config(folder, data), "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert time.monotonic() - started < 60 + number / 5
    document = json.loads(result.stdout)
    told = {
        item["images"][0]["name"]: item["detail"]
        for finding in document["findings"]
        if finding["kind"] == "unreadable"
        for item in finding["items"]
    }
    assert all(told.values())
    assert told.keys() <= set(names)
    assert len(told) > number // 5
    assert result.exit_code == document["exit_code"] == 3
    assert told == dict(_unreadable(data, names))  # what passes is what training can read


def _unreadable(data, names):
    for name in names:
        try:
            read_image(data / name, ImageLimits())
        except ImageError as error:
            yield name, error.reason


def test_two_hundred_damaged_images_are_each_read_or_told(tmp_path):
    check_damaged(tmp_path, 220, seed=20)


@pytest.mark.fuzz
@pytest.mark.slow
def test_two_thousand_damaged_images_are_each_read_or_told(tmp_path):
    check_damaged(
        tmp_path, 2_000, seed=int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(10**9)))
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [849345690])
def test_seeds_that_found_a_fault_find_none(tmp_path, seed):
    check_damaged(tmp_path, 2_000, seed=seed)


@pytest.mark.fuzz
@pytest.mark.parametrize("many", [150, pytest.param(6_000, marks=pytest.mark.slow)])
def test_a_damaged_image_is_an_image_or_an_image_error_for_all_that_read_one(tmp_path, capfd, many):
    """Nothing else is raised, nothing takes long, and nothing is written to the terminal."""
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(10**9) if many > 1_000 else many))
    rng, contents, sizes = random.Random(seed), [*originals(), *more_originals()], set()
    for number in range(many):
        format, content = rng.choice(contents)
        ending = rng.choice([format.lower(), "jpg", "png", "tif", "webp"])
        path = tmp_path / f"fuzz.{ending}"
        path.write_bytes(damaged(content, rng))
        about = (f"FUZZ_SEED={seed}", number, format, ending)
        started = time.process_time()
        try:
            answers = [answer(path) for answer in READERS]
        except Exception as error:
            raise AssertionError(about) from error
        assert time.process_time() - started < 10, about
        assert len({answer is None for answer in answers}) == 1, (about, answers)
        sizes |= {answer for answer in answers[:2] if answer}
    assert sizes
    out, err = capfd.readouterr()
    assert (out, err) == ("", ""), (f"FUZZ_SEED={seed}", out[:500], err[:500])
    print(f"FUZZ_SEED={seed} ({many} cases)")


def reader(read):
    """Make a reader that returns None where the file is refused as documented."""

    def answer(path):
        try:
            return read(path)
        except ImageError as error:
            return None if 0 < len(error.reason) < 300 else error.reason

    return answer


READERS = (
    reader(lambda path: inspect_image(path, ImageLimits(max_pixels=LIMIT)).width),
    reader(lambda path: look_at_image(path, ImageLimits(max_pixels=LIMIT)).info.width),
    reader(lambda path: read_image(path, ImageLimits(max_pixels=LIMIT)).size),
    reader(lambda path: read_image(path, ImageLimits(max_pixels=LIMIT), shrink_to=8).size),
)


def more_originals():
    """Return encoded pictures of the kinds that decoders find harder."""
    pixels = np.random.default_rng(1).integers(0, 256, (24, 30, 4), np.uint8)
    picture = Image.fromarray(pixels, "RGBA")
    kinds = (
        ("PNG", picture, {}),
        ("WEBP", picture, {"lossless": True}),
        ("TIFF", picture, {"compression": "tiff_deflate"}),
        ("TIFF", picture.convert("RGB"), {"compression": "jpeg"}),
        ("TIFF", picture.convert("1"), {"compression": "group4"}),
        ("TIFF", picture.convert("CMYK"), {"compression": "packbits"}),
        ("PNG", picture.convert("P"), {"transparency": 3}),
        ("PNG", Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), {}),
        ("PNG", picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        ("JPEG", picture.convert("CMYK"), {"progressive": True}),
        ("JPEG", picture.convert("L"), {"quality": 10}),
    )
    for format, image, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        yield format, buffer.getvalue()
