"""Cut text into the cells of a table: separators, quotes and lines, as Python's own reader does."""

import csv
import io
from pathlib import Path

from finetune.errors import DataError
from finetune.text import counted, printable

Record = tuple[int, list[str]]
"""the line that a record begins on, and its cells"""

_SEPARATORS = (",", ";", "\t", "|")
_MOST_COLUMNS = 10_000


def read_delimited(path: Path, text: str, separator: str | None = None) -> list[Record]:
    """Return the records of a text; those without text are left out.

    Args:
        path: the file, for messages.
        text: its text.
        separator: what stands between cells; None to find out.

    Raises:
        DataError: it is no table, for instance because of a quote that is not closed.
    """
    first = first_line(text)
    separator = separator or find_separator(first)
    if first.count(separator) >= _MOST_COLUMNS:
        raise DataError(
            f"{printable(str(path))} has {counted(first.count(separator) + 1, 'column')}, more than "
            f"{_MOST_COLUMNS:,}; expected a row for each image. Keep the columns that are needed."
        )
    # Where column names have blanks before them (`image, label`), cells have them too, and they are no part
    # of a name; elsewhere a name may begin with one.
    spaced = f"{separator} " in first
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=spaced, strict=True)
    records, line = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{printable(str(path))}:{line}: {_explain(error)}.") from None
    return records


def first_line(text: str) -> str:
    """Return the first line of a text that is not empty."""
    stripped = text.lstrip("\r\n")
    return stripped.splitlines()[0] if stripped else ""


def find_separator(line: str) -> str:
    """Return the separator that cuts a line into the most cells; of equals the first."""
    return max(_SEPARATORS, key=lambda separator: len(_cut(line, separator)))


def _cut(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:  # a cell that is longer than any; the whole text says where
        return line.split(separator)


def _explain(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text:
        return "a quote opens here and is not closed; double a quote inside a cell"
    if "field larger" in text:
        limit = f"{csv.field_size_limit():,}"
        return f"a cell has more than {limit} characters, or a quote opens here and is not closed"
    return f"{text}; double a quote inside a cell"
