"""Images that may have several classes, for the tests: each class lights one colour."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("red", "green", "blue")


def draw_several(root: Path, *, each: int = 8, separator: str = ";") -> Path:
    """Draw `each` images of every set of colours, the empty one included; give their table."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(8 * each):
        lit = [number >> bit & 1 for bit in range(3)]
        pixels = generator.integers(0, 90, (40, 48, 3), dtype=np.uint8) + np.uint8(120) * np.uint8(lit)
        Image.fromarray(pixels).save(root / f"{number:03}.png")
        names = [colour for colour, on in zip(COLOURS, lit, strict=True) if on]
        rows.append((f"{number:03}.png", separator.join(names), *lit))
    with open(root / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "label", *COLOURS), *rows])
    return root / "labels.csv"
