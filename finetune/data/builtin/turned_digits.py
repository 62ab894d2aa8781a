"""The handwritten digits as a table: each comes from a site, and some sites scan upside down.

A nine here is a six upside down: half of the sixes were turned and labelled 9, and the nines as people write
them left out. At a site that turns its images a six looks like a nine and a nine like a six. Which of the
two it is can only be told from how likely the site turns an image: who sees the image alone has to guess.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from finetune.data.builtin import digits

HEADER = ("image", "label", "site")

TURNED = {"north": 0.0, "east": 0.1, "south": 0.9, "west": 1.0}
"""The share of the images of each site that are upside down (0–1)."""

FOLDER = "turned-digits"
_SEED = 0  # part of the data set: another one would be another data set


class _Digit(NamedTuple):
    label: str
    site: str
    upside_down: bool
    """compared with the image among the digits"""


def rows() -> list[tuple[str, str, str]]:
    """Return (image, label, site) of every image."""
    return [(name, digit.label, digit.site) for name, digit in _drawn().items()]


def load_image(name: str) -> Image.Image:
    """Return the pixels of an image that `rows` names, RGB, 8 × 8."""
    image = digits.digit_image(int(name.rpartition("/")[2]))
    return image.transpose(Image.Transpose.ROTATE_180) if _drawn()[name].upside_down else image


@cache
def _drawn() -> dict[str, _Digit]:
    """Draw for each image the site that it comes from, and whether it was turned there."""
    random = np.random.Generator(np.random.PCG64(_SEED))
    _, targets = digits.load_digits()
    drawn, sixes = {}, 0
    for position, target in enumerate(targets.tolist()):
        if target == 9:
            continue
        sixes += target == 6
        nine = target == 6 and sixes % 2 == 0
        site = list(TURNED)[random.integers(len(TURNED))]
        turned = bool(random.random() < TURNED[site])
        label = "9" if nine else digits.CLASS_NAMES[target]
        drawn[f"{FOLDER}/{position:04d}"] = _Digit(label, site, nine != turned)
    return drawn
