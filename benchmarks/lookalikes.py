"""Measure which edited copies of a photo `finetune check` finds, and what it takes for copies that are none.

    python benchmarks/lookalikes.py                # two minutes
    python benchmarks/lookalikes.py --photos 1000
    python benchmarks/lookalikes.py FOLDER...      # photographs, of which 300 are edited

Photos are drawn, each edited in one way and saved as JPEG beside the original; what is printed is the part of
the copies that is found. Then the pairs found among photos that are all different, and among handwritten
digits, which are as alike as different pictures can be. In brackets is what thumbnails alone would find,
without the comparison of detail and colour.
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from photos import draw_photo
from PIL import Image, ImageEnhance, ImageOps

from finetune.data.builtin import digits
from finetune.data.images import THUMBNAIL_SIDE, ImageLimits, enlarge_thumbnail, look_at_image, read_image
from finetune.data.indexing.find_images import is_image_name
from finetune.data.quality.lookalikes import find_lookalikes
from finetune.errors import FinetuneError


def resized(side: int) -> Callable[[Image.Image], Image.Image]:
    """Return an edit that makes the longer side so long."""

    def edit(image: Image.Image) -> Image.Image:
        factor = side / max(image.size)
        return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))

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
    "sepia": lambda image: ImageOps.colorize(image.convert("L"), (20, 10, 0), (255, 240, 200)),
    "brightness × 0.7": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "brightness × 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "contrast × 1.3": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "1% cut off each side": cropped(0.01),
    "3% cut off each side": cropped(0.03),
    "10% cut off each side": cropped(0.1),
    "turned by 2°": lambda image: image.rotate(2),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


Pictures = tuple[bytes, bytes]  # the two thumbnails of an image, small and larger


def thumbnails(image: Image.Image, quality: int) -> Pictures:
    """Save a picture as JPEG, and give the thumbnails that the scan makes of it."""
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        image.save(file, "JPEG", quality=quality)
        file.flush()
        return thumbnails_of(Path(file.name))


def thumbnails_of(path: Path) -> Pictures:
    """Return the thumbnails of a file."""
    return look_at_image(path, ImageLimits()).thumbnail, enlarge_thumbnail(path, ImageLimits())


def groups_of(pictures: list[Pictures]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the groups that look alike, and those that do by their small thumbnails alone."""
    rows = np.frombuffer(b"".join(small for small, _ in pictures), np.uint8).reshape(-1, THUMBNAIL_SIDE**2)
    return find_lookalikes(rows, lambda some: [pictures[n][1] for n in some]), find_lookalikes(rows)


def show_edits(photos: list[Image.Image], originals: list[Pictures]) -> None:
    """Print the share of edited copies that is found."""
    n = len(photos)
    for name, edit in EDITS.items():
        copies = [thumbnails(edit(photo), 60) for photo in photos]
        found = [sum(g == (g[0], n + g[0]) for g in groups) / n for groups in groups_of(originals + copies)]
        print(f"  {name:<26} {found[0]:6.1%} found ({found[1]:.1%})")


def show_folder(folder: Path, most: int) -> None:
    """Print the groups among all photographs of a folder, and the share of edited copies of some."""
    files, pictures = [], []
    for file in sorted(folder.rglob("*")):
        with suppress(FinetuneError):
            if is_image_name(file.name) and file.is_file():
                pictures.append(thumbnails_of(file))
                files.append(file)
    confirmed, candidates = groups_of(pictures)
    print(f"{folder}: {len(confirmed)} groups among {len(files):,} ({len(candidates)})")
    for group in confirmed[:10]:
        print("   ", " = ".join(str(files[n].relative_to(folder)) for n in group[:4]))
    some = files[:: max(1, len(files) // most)][:most]
    photos = [read_image(file, ImageLimits(), shrink_to=500) for file in some]
    show_edits(photos, [thumbnails(photo, 92) for photo in photos])


def main() -> None:
    """Print what is found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("folders", nargs="*", type=Path)
    options = parser.parse_args()
    n = options.photos
    for folder in options.folders:
        show_folder(folder, n)
    if options.folders:
        return
    generator = np.random.default_rng(0)
    photos = [draw_photo(generator) for _ in range(n)]
    originals = [thumbnails(photo, 92) for photo in photos]
    print(f"{n} photos, and a copy of each at JPEG quality 60:")
    show_edits(photos, originals)
    print(f"different photos: {len(groups_of(originals)[0])} groups among {n}")
    images, targets = digits.load_digits()
    groups, candidates = groups_of([thumbnails(digits.digit_image(i), 100) for i in range(len(images))])
    mixed = sum(len({int(targets[i]) for i in group}) > 1 for group in groups)
    print(
        f"digits: {len(groups)} ({len(candidates)}) groups among {len(images):,}, {mixed} of different digits"
    )


main()
