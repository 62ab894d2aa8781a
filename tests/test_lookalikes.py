import io
import time

import numpy as np
import pytest
from conftest import some_quick
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from finetune.data.builtin import digits
from finetune.data.images import ImageLimits, enlarge_thumbnail, look_at_image
from finetune.data.quality.lookalikes import ALIKE, find_lookalikes


def photo(seed, width=300, height=200):
    """Draw smooth noise, in which low frequencies are strong as in photos."""
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    spectrum = np.fft.rfft2(generator.standard_normal((3, height, width))) / np.maximum(
        np.hypot(rows, columns), 1 / width
    )
    values = np.fft.irfft2(spectrum, (height, width))
    values = values / values.std() * 45 + 128
    return Image.fromarray(values.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def thumbnails(folder, images, format="PNG"):
    """Return the thumbnails of pictures as the scan makes them."""
    rows = []
    for number, image in enumerate(images):
        image.save(folder / f"{number}", format)
        rows.append(look_at_image(folder / f"{number}", ImageLimits()).thumbnail)
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(images), -1)


def recompressed(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


EDITS = {
    "recompressed": recompressed,
    "halved": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "stretched": lambda image: image.resize((224, 224)),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
}


@pytest.mark.parametrize("edit", some_quick(EDITS, "recompressed", "stretched", "darker"))
def test_an_edited_photo_is_found_among_others(tmp_path, edit):
    photos = [photo(seed) for seed in range(20)]
    found = find_lookalikes(thumbnails(tmp_path, [*photos, *map(EDITS[edit], photos)]))
    assert found == [(number, 20 + number) for number in range(20)]


def test_a_jpeg_and_its_png_copy_look_alike(tmp_path):
    photos = [photo(seed, 640, 480) for seed in range(10)]
    pairs = [*thumbnails(tmp_path, photos, "JPEG"), *thumbnails(tmp_path, photos)]
    assert find_lookalikes(np.stack(pairs)) == [(number, 10 + number) for number in range(10)]


@pytest.mark.slow
def test_different_photos_and_different_digits_do_not_look_alike(tmp_path):
    assert find_lookalikes(thumbnails(tmp_path, [photo(seed) for seed in range(60)])) == []
    images, targets = digits.load_digits()
    rows = thumbnails(tmp_path, [digits.digit_image(i) for i in range(len(images))])
    groups = find_lookalikes(rows)
    assert all(len({int(targets[i]) for i in group}) == 1 for group in groups)
    assert sum(map(len, groups)) < len(images) // 10  # of 8 × 8 pixels, which leave few ways to write a one


def cluster(seed):
    """Draw a bright spot on black, as star clusters are, with stars in other places for another seed."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    values = 230 * np.exp(-(x**2 + y**2) / 0.05)
    values[tuple(generator.integers(0, 200, (2, 1000)))] += 200
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(1)).convert("RGB")


def enlarged(folder, images):
    """Return what enlarges the thumbnails of pictures, and how often each was asked for."""
    asked = []
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")

    def enlarge(positions):
        asked.extend(positions)
        return [enlarge_thumbnail(folder / f"{n}.png", ImageLimits()) for n in positions]

    return enlarge, asked


def test_detail_tells_apart_what_thumbnails_cannot(tmp_path):
    pictures = [cluster(seed) for seed in range(4)] + [photo(seed) for seed in range(3)]
    pictures += [EDITS[edit](cluster(n)) for n, edit in enumerate(["recompressed", "halved", "darker"])]
    rows, (enlarge, asked) = thumbnails(tmp_path, pictures), enlarged(tmp_path, pictures)
    assert find_lookalikes(rows) == [(0, 1, 2, 3, 7, 8, 9)]
    assert find_lookalikes(rows, enlarge) == [(0, 7), (1, 8), (2, 9)]
    assert asked == [0, 1, 2, 3, 7, 8, 9]


def striped(*colours):
    """Draw a flag."""
    flag = Image.new("RGB", (300, 200))
    for number, colour in enumerate(colours):
        flag.paste(colour, (0, 200 * number // len(colours), 300, 200))
    return flag


def test_drawings_of_the_same_lines_are_told_apart_by_their_colours(tmp_path):
    flags = [
        striped("#b00", "white", "#b00"),
        striped("#06c", "white", "#06c"),
        striped("#080", "white", "#080"),
    ]
    flags += [
        EDITS[edit](flag) for edit, flag in zip(("recompressed", "halved", "darker"), flags, strict=True)
    ]
    rows, (enlarge, _) = thumbnails(tmp_path, flags), enlarged(tmp_path, flags)
    assert find_lookalikes(rows) == [(0, 1, 2, 3, 4, 5)]
    assert find_lookalikes(rows, enlarge) == [(0, 3), (1, 4), (2, 5)]
    grey = [flags[0], EDITS["grey"](flags[0])]
    rows, (enlarge, _) = thumbnails(tmp_path, grey), enlarged(tmp_path, grey)
    assert find_lookalikes(rows, enlarge) == [(0, 1)]


def test_photographs_in_another_tint_look_alike(tmp_path):
    photos = [photo(seed) for seed in range(3)]
    pictures = [*photos, *(ImageOps.colorize(image.convert("L"), "black", "gold") for image in photos)]
    rows, (enlarge, _) = thumbnails(tmp_path, pictures), enlarged(tmp_path, pictures)
    assert find_lookalikes(rows, enlarge) == [(0, 3), (1, 4), (2, 5)]


def test_images_without_detail_or_that_have_gone_are_alike_by_their_thumbnails(tmp_path):
    flag = Image.new("RGB", (300, 200), "navy")
    flag.paste("white", (0, 0, 300, 100))
    rows, (enlarge, _) = thumbnails(tmp_path, [flag, flag]), enlarged(tmp_path, [flag, flag])
    assert find_lookalikes(rows, enlarge) == [(0, 1)]
    clusters = thumbnails(tmp_path, [cluster(0), cluster(1)])
    assert find_lookalikes(clusters, lambda positions: [None] * len(positions)) == [(0, 1)]


def test_pictures_without_contrast_are_like_no_other():
    flat = np.full((50, 256), 255, np.uint8)
    flat[:, ::2] -= 2
    assert find_lookalikes(flat) == []
    assert find_lookalikes(np.empty((0, 256), np.uint8)) == []


def test_every_pair_that_comparing_all_finds_is_found():
    generator = np.random.default_rng(1)
    base = generator.integers(40, 216, (150, 256)).astype(float)
    noise = generator.normal(0, 1, (150, 256)) * generator.uniform(2, 14, (150, 1))
    rows = np.concatenate([base, base + noise]).clip(0, 255).astype(np.uint8)
    centred = rows - rows.mean(axis=1, keepdims=True)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    expected = {(i, j) for i, j in zip(*np.nonzero(np.triu(units @ units.T >= ALIKE, 1)), strict=True)}
    found = set(find_lookalikes(rows))
    assert 30 < len(expected) < 150
    assert found <= expected
    assert len(expected - found) <= len(expected) // 50


def test_a_burst_of_photos_is_one_group():
    generator = np.random.default_rng(2)
    scene = generator.integers(40, 216, 256).astype(float)
    burst = (scene + generator.normal(0, 3, (300, 256))).clip(0, 255).astype(np.uint8)
    assert find_lookalikes(burst) == [tuple(range(300))]


@pytest.mark.slow
def test_time_grows_with_the_number_of_pictures_and_not_with_its_square():
    generator = np.random.default_rng(3)
    rows = generator.integers(0, 256, (80_000, 256), dtype=np.uint8)

    def seconds(number):
        started = time.process_time()
        find_lookalikes(rows[:number])
        return time.process_time() - started

    assert min(seconds(80_000) for _ in range(3)) < 8 * min(seconds(20_000) for _ in range(3))
