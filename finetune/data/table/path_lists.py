"""Lists of images as training scripts read them: a path, a blank and a label on each line."""

from collections.abc import Callable, Sequence
from itertools import dropwhile
from pathlib import Path
from statistics import median_low

from finetune.data.table.delimited import SEPARATORS, Record, cut_lines, find_separator, read_delimited
from finetune.data.table.path_names import looks_like_image
from finetune.errors import DataError
from finetune.text import printable, shortened

_LOOKED_AT = 50
"""lines by which the kind of a list is told"""

Cut = Callable[[str], list[str]]


NamesFile = Callable[[str], bool]
"""Tells whether some text is the name of an image."""


def read_path_list(path: Path, text: str, tests: Sequence[NamesFile]) -> list[Record]:
    """Return the cells of each line of a `.txt` file.

    A line is a path; a path and a label, or a label and a path, with blanks between them, of which a path or
    a label may hold some itself; or cells between separators, as in a `.csv` file. Lines before the first
    that begin with `#` are about the list.

    Args:
        path: the file, for messages.
        text: its text.
        tests: what tells names of images, the surest first.

    Raises:
        DataError: its lines are none of these.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    lines = list(dropwhile(lambda line: line[1].startswith("#"), lines)) or lines
    if (records := _attribute_list(lines)) is not None:
        return records
    sample = [line.strip() for _, line in lines[1 : _LOOKED_AT + 1]] or [lines[0][1].strip()]
    cut: Cut | None = None
    for names_file in tests:
        if separator := _separator_beside_files(sample, names_file):
            return read_delimited(path, text, separator)
        cut = cut or _find_cut(sample, names_file)
        if cut is _not_at_all:  # names of files may hold separators
            break
    cut = cut or _at_blanks(sample) or (_not_at_all if all(map(_is_path, sample)) else None)
    if cut is None and median_low(map(len, cut_lines(sample, separator := find_separator(sample)))) > 1:
        return read_delimited(path, text, separator)
    if cut is None:
        raise DataError(
            f"{printable(str(path))} is no list of images: line {lines[-1][0]} is "
            f"{printable(shortened(lines[-1][1]))!r}; expected `path label` on each line, or a .csv file."
        )
    return [(number, cut(line.strip())) for number, line in lines]


def _attribute_list(lines: Sequence[tuple[int, str]]) -> list[Record] | None:
    """Return the records of a list with column names, perhaps without one for the image, as of CelebA.

    The number of images may stand above them.
    """
    if lines[0][1].strip().isdigit() and len(lines) > 2:
        lines = lines[1:]
    header, sample = lines[0][1].split(), [line.split() for _, line in lines[1 : _LOOKED_AT + 1]]
    widths = {len(cells) for cells in sample}
    if len(widths) != 1 or len(header) < 2 or any(map(looks_like_image, header)):
        return None
    (width,) = widths
    if width - len(header) not in (0, 1) or not all(looks_like_image(cells[0]) for cells in sample):
        return None
    if not all(map(_is_number, sample[0][1:])):
        return None
    names = (["image"] if width > len(header) else []) + header
    return [(lines[0][0], names), *((number, line.split()) for number, line in lines[1:])]


def _is_number(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdecimal()


def _separator_beside_files(sample: list[str], names_file: NamesFile) -> str | None:
    """Return the separator that leaves the names of files in one of several columns, if one does."""
    shares = {separator: _share_of_files(sample, separator, names_file) for separator in SEPARATORS}
    best = max(SEPARATORS, key=shares.__getitem__)
    return best if shares[best] >= 0.5 else None


def _share_of_files(sample: list[str], separator: str, names_file: NamesFile) -> float:
    """Return the share of records with the name of a file in the column that has most of them (0–1)."""
    records = cut_lines(sample, separator)
    width = median_low(map(len, records))
    if width < 2:
        return 0
    rows = [record for record in records if len(record) == width]
    return max(sum(map(names_file, column)) for column in zip(*rows, strict=True)) / len(records)


def _find_cut(sample: list[str], names_file: NamesFile) -> Cut | None:
    """Return how lines are to be cut into cells beside the paths in them, if there are any."""
    if _most(sample, names_file):
        return _not_at_all
    ways: tuple[tuple[Cut, int], ...] = ((_at_last, 0), (_at_first, 0), (_at_first, 1), (_at_last, 1))
    named = [sum(map(names_file, ([*cut(line), ""][position] for line in sample))) for cut, position in ways]
    cut, position = ways[named.index(max(named))]  # a label may hold blanks in some lines alone
    if 2 * max(named) < len(sample):
        return None
    return _at_all if cut is _at_first and position == 0 and _are_numbers(sample) else cut


def _at_blanks(sample: list[str]) -> Cut | None:
    """Return a cut at every blank if all lines have as many."""
    widths = {len(line.split()) for line in sample}
    return _at_all if len(widths) == 1 and widths != {1} else None


def _is_path(line: str) -> bool:
    """Tell whether a line is one word with folders, as where the images of a list are somewhere else."""
    return "/" in line and len(line.split()) == 1


def _most(sample: list[str], is_so: Callable[[str], bool]) -> bool:
    return 2 * sum(map(is_so, sample)) >= len(sample)


def _are_numbers(sample: list[str]) -> bool:
    """Tell whether only numbers follow the path, as many in each line, two or more."""
    rests = [line.split()[1:] for line in sample]
    return len({*map(len, rests)}) == 1 < len(rests[0]) and all(
        _is_number(one) for rest in rests for one in rest
    )


def _not_at_all(line: str) -> list[str]:
    return [line]


def _at_last(line: str) -> list[str]:
    return line.rsplit(None, 1)


def _at_first(line: str) -> list[str]:
    return line.split(None, 1)


def _at_all(line: str) -> list[str]:
    return line.split()
