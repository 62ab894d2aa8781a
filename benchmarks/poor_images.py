"""Spoil photographs on purpose, and count how many of each kind `finetune check` calls poor.

    python benchmarks/poor_images.py FOLDER...

Each folder holds images, at any depth. Printed is the share of photographs that are called dark, bright,
empty or blurred as they are, and after each way of spoiling them. Blur is Gaussian, its standard deviation a
share of the shorter side.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image, ImageFilter

from finetune.data.images.appearance import Appearance, judge_appearance
from finetune.data.images.decode import ImageError, read_image
from finetune.data.images.limits import ImageLimits
from finetune.data.quality.poor_images import BLURRED, BRIGHT, DARK, EMPTY

CALLED: dict[str, Callable[[Appearance], bool]] = {
    "dark": lambda look: look.brightest < DARK,
    "bright": lambda look: look.darkest > BRIGHT,
    "empty": lambda look: look.information < EMPTY,
    "blurred": lambda look: look.sharpness < BLURRED,
}


def darker(share: float, grey: Image.Image) -> Image.Image:
    """Return a picture at a share of its brightness."""
    return grey.point(lambda value: round(share * value))


def paler(share: float, grey: Image.Image) -> Image.Image:
    """Return a picture with white laid over it."""
    return grey.point(lambda value: round(255 * share + (1 - share) * value))


def blurred(share: float, grey: Image.Image) -> Image.Image:
    """Return a picture blurred by a share of its shorter side."""
    return grey.filter(ImageFilter.GaussianBlur(share * min(grey.size)))


SPOILED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda grey: grey,
    **{f"at {share:.0%} of their brightness": partial(darker, share) for share in (0.3, 0.2, 0.1)},
    **{f"under {share:.0%} white": partial(paler, share) for share in (0.8, 0.9, 0.95)},
    "one grey": lambda grey: Image.new("L", grey.size, 128),
    **{f"blurred by {share:.1%}": partial(blurred, share) for share in (0.005, 0.01, 0.02, 0.04)},
}


def main() -> None:
    """Print a table for each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        greys = list(photographs(folder))
        print(f"\n| {folder.name}, {len(greys)} photographs | {' | '.join(CALLED)} |")
        print(f"|---|{'---|' * len(CALLED)}")
        for name, spoil in SPOILED.items():
            looks = [judge_appearance(spoil(grey)) for grey in greys]
            shares = [sum(map(called, looks)) / len(looks) for called in CALLED.values()]
            print(f"| {name} | {' | '.join(f'{share:.1%}' if share else '–' for share in shares)} |")


def photographs(folder: Path) -> list[Image.Image]:
    """Return the readable images below a folder, in grey."""
    greys = []
    for path in sorted(folder.rglob("*")):
        try:
            greys.append(read_image(path, ImageLimits(), shrink_to=256).convert("L"))
        except ImageError:
            continue
    return greys


if __name__ == "__main__":
    main()
