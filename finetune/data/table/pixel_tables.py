"""Say of tables that hold the pixels of images, instead of names of files, how these become files.

`label,pixel0,pixel1,…` as MNIST is passed on, and `emotion,pixels,Usage` with all pixels in a cell (FER2013).
"""

import re
from collections.abc import Callable, Sequence
from math import isqrt
from pathlib import Path

from finetune.data.image_files import open_file
from finetune.data.indexing.conversions import pixel_cells_command, pixel_columns_command
from finetune.data.table.delimited import Record, read_delimited
from finetune.data.table.path_names import looks_like_image
from finetune.errors import DataError
from finetune.text import counted, printable, shortened

_FEWEST = 64
"""pixels of an image; a table with fewer numbers in a row holds facts"""
_LOOKED_AT = 3
_STARTS = 1 << 18
"""bytes of a table by which it is told"""
_PLAIN = re.compile(r"\w[\w .-]*")


def refuse_pixels(path: Path, records: Sequence[Record], names_file: Callable[[str], bool]) -> None:
    """Refuse a table of pixels.

    Args:
        path: the file.
        records: its cells, with or without column names.
        names_file: tells whether some text is the name of an image.

    Raises:
        DataError: it is one, and names no file.
    """
    if not records:
        return
    header, *body = [cells for _, cells in records[: _LOOKED_AT + 1]]
    sample = body or [header]
    if any(looks_like_image(cell) or names_file(cell) for cell in sample[0] if len(cell) < 300):
        return
    what = _in_columns(path, header, sample) or _in_a_cell(path, header, sample)
    if what is not None:
        raise DataError(
            f"{printable(str(path))} {what[0]} instead of names of files.\n"
            f"Write its images as files there, then data.path: {printable(str(path.parent / 'png'))}{what[1]}"
        )


def pixels_hint(folder: Path, names: Sequence[str]) -> str:
    """Return what to do with a table of pixels, best one with labels, among those in a folder."""
    found = []
    for name in sorted(names):
        try:
            with open_file(folder / name) as file:
                start, *_ = file.read(_STARTS).decode("utf-8", "replace").rpartition("\n")
            refuse_pixels(folder / name, read_delimited(folder / name, start), lambda cell: False)
        except OSError:
            continue
        except DataError as error:
            if "holds pixels" in str(error):
                found.append(f"\n{error}")
    return max(found, key=lambda line: "python -c" in line, default="")


def _in_columns(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, str] | None:
    """Return what is said of a table with a column for each pixel."""
    width = len(header)
    if width < _FEWEST or any(len(row) != width for row in rows):
        return None
    others = [n for n in range(width) if not all(_is_pixel(row[n]) for row in rows)]
    label = next((n for n, name in enumerate(header) if name.strip().lower() in ("label", "class")), None)
    label = label if label is not None else others[0] if others else _odd_one(width)
    if len({*others, *({label} - {None})}) > 1 or _shape(width - (label is not None)) is None:
        return None
    command = ""
    if label is not None and (shape := _shape(width - 1)) is not None:
        headed = not all(map(_is_pixel, header[1:]))
        command = f": {pixel_columns_command(path.name, label, shape, headed=headed)}"
    return f"holds pixels in {counted(width - (label is not None), 'column')}", command


def _odd_one(width: int) -> int | None:
    """Return the position of a label among columns of whole numbers; the first, or None if all are pixels."""
    return 0 if _shape(width) is None else None


def _in_a_cell(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, str] | None:
    """Return what is said of a table with all pixels of an image in a cell."""
    for n, name in enumerate(header):
        cells = [row[n].split() if n < len(row) else [] for row in rows]
        if not all(len(cell) >= _FEWEST and all(map(_is_pixel, cell)) for cell in cells):
            continue
        label = next((other for other in header if other != name), None)
        shape, command = _shape(len(cells[0])), ""
        if label and shape and _PLAIN.fullmatch(label) and _PLAIN.fullmatch(name):
            command = f": {pixel_cells_command(path.name, label, name, shape)}"
        return f"holds pixels in column {shortened(name)!r}", command
    return None


def _is_pixel(text: str) -> bool:
    return bool(re.fullmatch(r" *\d{1,3}(\.0*)? *", text)) and float(text) < 256


def _shape(pixels: int) -> tuple[int, ...] | None:
    """Return the height and width of a square picture of so many values, and its channels if it has three."""
    side, coloured = isqrt(pixels), isqrt(pixels // 3)
    if side * side == pixels:
        return side, side
    return (coloured, coloured, 3) if 3 * coloured * coloured == pixels else None
