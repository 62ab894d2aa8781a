"""Read a table file into cells that are text, each row with its place in the file.

CSV and TSV are read with Python's own reader: it reads nothing as a number, a date or a missing value, and
knows the line of each row, also after a line end in quotes. Parquet, which has types, is read with pandas.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os.path import isdir
from pathlib import Path
from typing import Literal, NoReturn

from finetune.choices import AUTO_ENCODING, TABLE_SUFFIXES
from finetune.data.archives.refusal import refuse_parquet
from finetune.data.image_files import archive_of, file_exists, file_status, open_file
from finetune.data.table.delimited import Record, read_delimited
from finetune.data.table.encoding import Errors, decode_text
from finetune.data.table.files import ImageFiles
from finetune.data.table.json_objects import LIST_SEPARATOR
from finetune.data.table.json_tables import (
    JsonRows,
    read_json,
    read_json_lines,
    spread_objects,
)
from finetune.data.table.parquet import read_parquet
from finetune.data.table.path_lists import read_path_list
from finetune.data.table.path_names import looks_like_image
from finetune.data.table.pixel_tables import refuse_pixels
from finetune.data.table.predictions import COLUMN, classes_of_predictions
from finetune.data.table.ragged_labels import join_ragged_labels
from finetune.data.table.spreadsheet import refuse_spreadsheet
from finetune.data.table.usual_names import has_usual_name
from finetune.errors import DataError
from finetune.text import counted, expanded, printable, quoted, shortened, where_paths_begin

_LISTED = 20
_LOOKED_AT = 20  # rows by which column names are told
_LONGEST = 300  # characters of a fault


@dataclass(frozen=True)
class Table:
    """The cells of a table, all of them text."""

    path: Path
    header: tuple[str, ...]
    """column names, without blanks around them"""
    rows: tuple[tuple[str, ...], ...]
    """each as long as the header; rows without any text are left out"""
    numbers: tuple[int, ...]
    """where each row begins: the line of the file, from 1; of Parquet, which has no lines, the row"""
    unit: Literal["line", "row", "entry"] = "line"
    encoding: str | None = "utf-8"
    """of its text; None where it has none"""
    headed: bool = True
    """whether the file itself names its columns"""
    lists: frozenset[str] = frozenset()
    """columns of which cells hold several texts"""
    files: tuple[str, ...] = ()
    """the file that each row is from, where there are several"""
    notes: tuple[str, ...] = ()
    """what was made of it when it was read"""

    def __str__(self) -> str:
        return printable(str(self.path))

    def place(self, row: int) -> str:
        """Say where a row stands: `line 7`."""
        where = f"{self.files[row]}, " if self.files else ""
        return f"{where}{self.unit} {self.numbers[row]}"

    def column(self, position: int) -> list[str]:
        """Return the cells of one column."""
        return [row[position] for row in self.rows]

    def refuse(self, faults: Sequence[str], otherwise: str = "") -> NoReturn:
        """Raise what is wrong with the rows, the first faults and the number of all, and what else may help.

        Raises:
            DataError: always.
        """
        number = counted(len(faults), "fault")
        more = [f"… and {len(faults) - _LISTED:,} more"] if len(faults) > _LISTED else []
        lines = [f"  {printable(shortened(line, _LONGEST))}" for line in [*faults[:_LISTED], *more]]
        remedy = " ".join(filter(None, ("Fix or remove these rows.", otherwise)))
        raise DataError("\n".join([f"{number} in the rows of {self}:", *lines, remedy]))


def is_table(path: str | Path) -> bool:
    """Tell whether a path is read as a table: it ends like one, and no folder is called so."""
    return Path(path).suffix.lower() in TABLE_SUFFIXES and not isdir(expanded(path))


def read_table(
    path: str | Path,
    *,
    files: ImageFiles | None = None,
    encoding: str = AUTO_ENCODING,
    errors: Errors = "strict",
) -> Table:
    """Read a table.

    Args:
        path: the file; its ending says what it is.
        files: the images, by which a first row that names one is told from column names; None to tell by the
            endings of names alone.
        encoding: what the text is in; `auto` for UTF-8, or what its byte-order mark says.
        errors: what to do about bytes that are not UTF-8: refuse them, or keep them as Python keeps those in
            names of files.

    Raises:
        DataError: no such file, or one that is no table.
        MachineError: a Parquet file, and nothing installed that reads it.
    """
    given, path = path, expanded(path).absolute()
    shown = printable(shortened(str(path), 300))
    if not _exists(path):
        raise DataError(f"no such table: {shown}.{where_paths_begin(given)}")
    if not _is_regular(path):
        raise DataError(f"{shown} is not a regular file; expected a table.")
    refuse_spreadsheet(path)
    try:
        if path.suffix.lower() == ".parquet":
            table = _from_parquet(path)
        else:
            text, found = decode_text(path, _content(path), encoding, errors)
            table = _from_text(path, text, found, files or ImageFiles(None))
    except OSError as error:
        raise DataError(f"cannot read {shown}: {(error.strerror or str(error)).lower()}.") from None
    _check_header(table)
    if not table.rows:
        raise DataError(f"{shown} has no rows below its column names.")
    return table


def _exists(path: Path) -> bool:
    try:
        return file_exists(path)
    except (OSError, ValueError):  # too long a name, or one with a NUL
        return False


def _is_regular(path: Path) -> bool:
    """Tell whether a path is a file that can be read without waiting for another program."""
    try:
        return file_status(path).is_file
    except (OSError, ValueError):
        return False


def _content(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def _from_parquet(path: Path) -> Table:
    if (archive := archive_of(path)) is not None:
        raise refuse_parquet(archive)
    found = read_parquet(path)
    numbers = [number for number, row in enumerate(found.rows, start=1) if any(row)]
    kept = tuple(found.rows[number - 1] for number in numbers)
    return Table(path, found.header, kept, tuple(numbers), unit="row", encoding=None, lists=found.lists)


def _from_text(path: Path, text: str, encoding: str, files: ImageFiles) -> Table:
    if not text.strip():
        raise DataError(
            f"{printable(str(path))} is empty; expected column names, then a line for each image."
        )

    def names_file(cell: str) -> bool:
        return looks_like_image(cell) or files.names_one(cell)

    match path.suffix.lower():
        case ".json":
            return table_of_objects(read_json(path, text, names_file), encoding=encoding)
        case ".jsonl" | ".ndjson" | ".manifest":
            return table_of_objects(read_json_lines(path, text), encoding=encoding, unit="line")
        case ".txt":
            records = read_path_list(path, text, (files.names_one, looks_like_image))
        case ending:
            records = read_delimited(path, text, "\t" if ending == ".tsv" else None)
    if not records:
        raise DataError(f"{printable(str(path))} is empty: it holds nothing but separators.")
    refuse_pixels(path, records, files.names_one)
    listed = path.suffix.lower() == ".txt"
    headed = has_header(records, names_file, expected=not listed)
    if not headed and (joined := join_ragged_labels(records, names_file)) is not None:
        table = _with_header(path, joined, encoding, headed)
        return replace(table, lists=frozenset(table.header[-1:]), notes=("all labels of a row",))
    return _with_header(path, records, encoding, headed)


def table_of_objects(
    found: JsonRows, *, encoding: str | None = "utf-8", unit: Literal["entry", "line"] = "entry"
) -> Table:
    """Return the rows of objects, of JSON or what is read as such, as a table."""
    return Table(
        found.path,
        tuple(found.columns),
        found.cells(),
        tuple(found.numbers),
        unit=unit,
        encoding=encoding,
        lists=frozenset(found.lists),
        notes=found.notes,
    )


def has_header(records: Sequence[Record], names_file: Callable[[str], bool], *, expected: bool) -> bool:
    """Tell whether the first record holds column names: not if it names a file where the others do.

    Args:
        records: the cells of each line.
        names_file: tells whether some text is the name of an image.
        expected: the answer where nothing names a file.
    """
    first, body = records[0][1], [cells for _, cells in records[1:]]
    again = {cells[n] for cells in body for n in range(min(len(first), len(cells))) if cells[n] == first[n]}
    if not any(map(looks_like_image, first)) and has_usual_name(set(first) - again):
        return True  # even if a file is called `image.png`; a name does not stand below itself
    below = {n: _name_files(body[:_LOOKED_AT], n, names_file) for n in range(len(first))}
    if any(names_file(first[n]) for n in below if below[n] or not body):
        return False
    return expected or any(below.values())


def _name_files(rows: Sequence[Sequence[str]], position: int, names_file: Callable[[str], bool]) -> bool:
    """Tell whether half of the cells of a column or more name files."""
    cells = [row[position] for row in rows if position < len(row)]
    return bool(cells) and 2 * sum(map(names_file, cells)) >= len(cells)


def _with_header(path: Path, records: Sequence[Record], encoding: str, headed: bool) -> Table:
    header = records[0][1] if headed else [f"column {n + 1}" for n in range(len(records[0][1]))]
    body = records[1:] if headed else records
    wrong = [
        f"line {line}: {counted(len(cells), 'cell')} for {counted(len(header), 'column')}; "
        "quote cells that hold a separator"
        for line, cells in body
        if len(cells) != len(header)
    ]
    table = Table(
        path,
        tuple(name.strip() for name in header),
        rows=tuple(tuple(cells) for _, cells in body),
        numbers=tuple(line for line, _ in body),
        encoding=encoding,
        headed=headed,
    )
    if wrong:
        table.refuse(wrong)
    if COLUMN in table.header:
        table = _without_boxes(table)
    if len(set(table.header)) == len(header) and any(cell.startswith("{") for cell in records[-1][1]):
        found = spread_objects(path, table.header, body)
        return replace(table, header=tuple(found.columns), rows=found.cells(), lists=frozenset(found.lists))
    return table


def _without_boxes(table: Table) -> Table:
    """Return a table with the classes alone in its column of classes and boxes, if it is one."""
    position = table.header.index(COLUMN)
    classes = classes_of_predictions(table.column(position))
    if classes is None:
        return table
    rows = tuple(
        (*row[:position], LIST_SEPARATOR.join(names), *row[position + 1 :])
        for row, names in zip(table.rows, classes, strict=True)
    )
    note = f"the classes of {COLUMN} without their boxes"
    return replace(table, rows=rows, lists=frozenset((COLUMN,)), notes=(note,))


def _check_header(table: Table) -> None:
    repeated = sorted(name for name, number in Counter(table.header).items() if name and number > 1)
    if repeated:
        raise DataError(f"{table} has several columns called {quoted(repeated)}; rename them.")
