"""Read a column `PredictionString`, as of ImageNet on Kaggle: the classes and boxes of an image in a cell."""

import re
from collections.abc import Sequence

COLUMN = "PredictionString"
_OBJECTS = re.compile(r"\s*(?:\S+(?:\s+-?\d+(?:\.\d+)?){4}\s*)+")


def classes_of_predictions(cells: Sequence[str]) -> list[list[str]] | None:
    """Return the classes in each cell, each once; None unless all cells hold classes and boxes."""
    if not cells or not all(map(_OBJECTS.fullmatch, cells)):
        return None
    return [list(dict.fromkeys(cell.split()[::5])) for cell in cells]
