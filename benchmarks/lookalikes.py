"""Measure which edited copies of a photo `finetune check` finds, and what it takes for copies that are none.

    python benchmarks/lookalikes.py                # two minutes
    python benchmarks/lookalikes.py --photos 1000

Photos are drawn, each edited in one way and saved as JPEG beside the original; what is printed is the part of
the copies that is found. Then the pairs found among photos that are all different, and among handwritten
digits, which are as alike as different pictures can be.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from photos import draw_photo
from PIL import Image, ImageEnhance

from finetune.data.builtin import digits
from finetune.data.images import THUMBNAIL_SIDE, ImageLimits, look_at_image
from finetune.data.quality.lookalikes import find_lookalikes


def resized(side: int) -> Callable[[Image.Image], Image.Image]:
    """Return an edit that makes the longer side so long."""

    def edit(image: Image.Image) -> Image.Image:
        factor = side / max(image.size)
        return image.resize((round(image.width * factor), round(image.height * factor)))

    return edit


def cropped(part: float) -> Callable[[Image.Image], Image.Image]:
    """Return an edit that cuts this part off each side."""

    def edit(image: Image.Image) -> Image.Image:
        x, y = round(image.width * part), round(image.height * part)
        return image.crop((x, y, image.width - x, image.height - y))

    return edit


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed": lambda image: image,
    "half the size": resized(250),
    "a thumbnail of 100 pixels": resized(100),
    "squeezed to a square": lambda image: image.resize((224, 224)),
    "grey": lambda image: image.convert("L"),
    "brightness × 0.7": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "brightness × 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "contrast × 1.3": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "1% cut off each side": cropped(0.01),
    "3% cut off each side": cropped(0.03),
    "10% cut off each side": cropped(0.1),
    "turned by 2°": lambda image: image.rotate(2),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def thumbnail(image: Image.Image, quality: int) -> bytes:
    """Save a picture as JPEG, and give the thumbnail that the scan makes of it."""
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        image.save(file, "JPEG", quality=quality)
        file.flush()
        return look_at_image(Path(file.name), ImageLimits()).thumbnail


def rows(thumbnails: list[bytes]) -> np.ndarray:
    """Join thumbnails into one array (N, P)."""
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, THUMBNAIL_SIDE**2)


def main() -> None:
    """Print what is found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=300)
    n = parser.parse_args().photos
    generator = np.random.default_rng(0)
    photos = [draw_photo(generator) for _ in range(n)]
    originals = [thumbnail(photo, 92) for photo in photos]
    print(f"{n} photos, and a copy of each at JPEG quality 60:")
    for name, edit in EDITS.items():
        copies = [thumbnail(edit(photo), 60) for photo in photos]
        groups = find_lookalikes(rows(originals + copies))
        found = sum(group == (group[0], n + group[0]) for group in groups)
        print(f"  {name:<26} {found / n:6.1%} found")
    print(f"different photos: {len(find_lookalikes(rows(originals)))} groups among {n}")
    images, targets = digits.load_digits()
    pictures = [thumbnail(digits.digit_image(i), 100) for i in range(len(images))]
    groups = find_lookalikes(rows(pictures))
    mixed = sum(len({int(targets[i]) for i in group}) > 1 for group in groups)
    print(f"digits: {len(groups)} groups among {len(images):,}, {mixed} of different digits")


main()
