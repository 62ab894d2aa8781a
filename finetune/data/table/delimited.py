"""Cut text into the cells of a table: separators, quotes and lines, as Python's own reader does."""

import csv
import io
import re
from collections.abc import Sequence
from itertools import dropwhile, islice
from pathlib import Path

from finetune.errors import DataError
from finetune.text import counted, printable

Record = tuple[int, list[str]]
"""the line that a record begins on, and its cells"""

SEPARATORS = (",", ";", "\t", "|")
_SAID = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_MOST_COLUMNS = 10_000
_LOOKED_AT = 50
"""lines by which the separator is told"""


def read_delimited(path: Path, text: str, separator: str | None = None) -> list[Record]:
    """Return the records of a text; those without text are left out, as are lines about it before the first.

    Args:
        path: the file, for messages.
        text: its text.
        separator: what stands between cells; None to find out.

    Raises:
        DataError: it is no table, for instance because of a quote that is not closed.
    """
    text, said = _without_preface(text)
    lines = first_lines(text)
    first = lines[0] if lines else ""
    separator = separator or said or find_separator(lines)
    if first.count(separator) >= _MOST_COLUMNS:
        raise DataError(
            f"{printable(str(path))} has {counted(first.count(separator) + 1, 'column')}, more than "
            f"{_MOST_COLUMNS:,}; expected a row for each image. Keep the columns that are needed."
        )
    # Where column names have blanks before them (`image, label`), cells have them too, and they are no part
    # of a name; elsewhere a name may begin with one.
    spaced = f"{separator} " in first
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=spaced, strict=True
    )
    records, line = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{printable(str(path))}:{line}: {_explain(error)}.") from None
    return records


def _without_preface(text: str) -> tuple[str, str | None]:
    """Return a text with empty lines for those about it at its beginning, and the separator that one names.

    `sep=;` is what spreadsheets write and heed; lines with `#` are remarks unless they hold the separator.
    """
    if (said := _SAID.match(text)) is not None:
        return "\n" + text[said.end() :], said[1]
    lines = list(dropwhile(lambda line: line.startswith("#"), first_lines(text)))
    remarks = re.match(rf"(#[^\n{re.escape(find_separator(lines))}]*\n)+", text) if lines else None
    if remarks is None:
        return text, None
    return "\n" * remarks[0].count("\n") + text[remarks.end() :], None


def first_lines(text: str) -> list[str]:
    """Return the first lines of a text that are not empty."""
    lines = (line.rstrip("\r\n") for line in io.StringIO(text, newline=None))
    return list(islice(filter(None, lines), _LOOKED_AT))


def find_separator(lines: Sequence[str]) -> str:
    """Return the separator that cuts the first lines of a table into records of as many cells each.

    Of several the one that cuts the first into the most; of equals the first.
    """

    def score(separator: str) -> tuple[float, int]:
        widths = [len(cells) for cells in cut_lines(lines, separator)] or [1]
        return sum(width == widths[0] > 1 for width in widths) / len(widths), widths[0]

    return max(SEPARATORS, key=score)


def cut_lines(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Return the cells of the records in some lines, whatever is wrong with them."""
    records: list[list[str]] = []
    try:
        records.extend(csv.reader((f"{line}\n" for line in lines), delimiter=separator))
    except csv.Error:  # a cell that is longer than any; reading the whole says where
        records.append(lines[0].split(separator))
    return records


def _explain(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text:
        return "a quote opens here and is not closed; double a quote inside a cell"
    if "field larger" in text:
        limit = f"{csv.field_size_limit():,}"
        return f"a cell has more than {limit} characters, or a quote opens here and is not closed"
    return f"{text}; double a quote inside a cell"
