"""How bright, sharp and full of detail a picture is, in numbers that do not depend on its size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 128
"""shorter side in pixels at which pictures are judged: about as training sees them"""

_LEVELS = 256
_DIM = 0.5  # brightness of a picture of which the colours are looked at: pure red has 0.3, and blue 0.11


@dataclass(frozen=True)
class Appearance:
    """What a picture looks like, whatever it shows."""

    brightest: float
    """brightness that one pixel in a hundred exceeds, 0–1; where it is dim, that of the strongest primary"""
    darkest: float
    """brightness below which one pixel in twenty is, 0–1"""
    information: float
    """entropy of the grey levels in bits, 0–8; 0 where all pixels are the same"""
    sharpness: float
    """how much neighbouring pixels differ beside all pixels: standard deviation of the Laplacian over that of
    the grey levels (after Pech-Pacheco et al., 2000, "Diatom autofocusing in brightfield microscopy")"""


def judge_appearance(grey: Image.Image, colours: Image.Image | None = None) -> Appearance:
    """Judge a grey picture (mode `L`) of any size, and the same in colours (`RGB`) if it has some."""
    pixels = np.asarray(_at_side(grey), dtype=np.float32)
    counts = np.bincount(pixels.astype(np.uint8).ravel(), minlength=_LEVELS)
    darkest, brightest = np.percentile(pixels, (5, 99)) / (_LEVELS - 1)
    if brightest < _DIM and colours is not None:
        brightest = np.percentile(np.asarray(_at_side(colours)).max(axis=2), 99) / (_LEVELS - 1)
    return Appearance(float(brightest), float(darkest), _entropy(counts), _sharpness(pixels))


def _at_side(grey: Image.Image) -> Image.Image:
    """Return a picture with a shorter side of `SIDE` pixels; one that is smaller stays as it is."""
    scale = SIDE / min(grey.size)
    if scale >= 1:
        return grey
    width, height = (max(round(scale * side), 1) for side in grey.size)
    return grey.resize((width, height), Image.Resampling.BOX)


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # not -0.0


def _sharpness(pixels: NDArray[np.float32]) -> float:
    """Return 0 for a picture without any contrast, or too small to have neighbours on all sides."""
    contrast = float(pixels.std())
    if min(pixels.shape) < 3 or contrast == 0:
        return 0.0
    inner = pixels[1:-1, 1:-1]
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((around - 4 * inner).std()) / contrast
