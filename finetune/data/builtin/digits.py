"""scikit-learn's handwritten digits as a data set of images: 1797 images of 8 × 8, ten classes.

They come with scikit-learn (the test part of the UCI set "Optical Recognition of Handwritten Digits"), so
nothing is downloaded. Each began as a bitmap of 32 × 32 whose set pixels were counted in blocks of 4 × 4:
0 … 16, light strokes on a dark ground.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASS_NAMES = tuple(str(digit) for digit in range(10))

_HIGHEST_COUNT = 16  # a block of 4 × 4 with every pixel set


@cache
def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Load all images (1797, 8, 8), grey 0–255, and their targets (1797,), once and read-only."""
    from sklearn import datasets  # a second of import, only for those who use it

    counts, targets = datasets.load_digits(return_X_y=True)
    images = np.rint(counts.reshape(-1, 8, 8) * (255 / _HIGHEST_COUNT)).astype(np.uint8)
    targets = targets.astype(np.int64)
    images.flags.writeable = False
    targets.flags.writeable = False
    return images, targets


def sample_names() -> list[str]:
    """Return each sample its stable name, position and class: `digits/0000-0`."""
    _, targets = load_digits()
    return [f"digits/{index:04d}-{target}" for index, target in enumerate(targets)]


def digit_image(index: int) -> Image.Image:
    """Return one sample as an RGB image of 8 × 8, as if it had been read from a file."""
    images, _ = load_digits()
    return Image.fromarray(images[index]).convert("RGB")
