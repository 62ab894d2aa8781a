"""Read a table file into cells that are text, each row with its place in the file.

CSV and TSV are read with Python's own reader: it reads nothing as a number, a date or a missing value, and
knows the line of each row, also after a line end in quotes. Parquet, which has types, is read with pandas.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from finetune.choices import TABLE_SUFFIXES
from finetune.errors import DataError, MachineError
from finetune.text import counted, printable, where_paths_begin

_SEPARATORS = (",", ";", "\t", "|")
_LISTED = 20


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
    unit: Literal["line", "row"] = "line"

    def __str__(self) -> str:
        return printable(str(self.path))

    def place(self, row: int) -> str:
        """Say where a row stands: `line 7`."""
        return f"{self.unit} {self.numbers[row]}"

    def column(self, position: int) -> list[str]:
        """Return the cells of one column."""
        return [row[position] for row in self.rows]

    def refuse(self, faults: Sequence[str]) -> NoReturn:
        """Raise what is wrong with the rows, the first faults and the number of all.

        Raises:
            DataError: always.
        """
        number = counted(len(faults), "fault")
        more = [f"… and {len(faults) - _LISTED:,} more"] if len(faults) > _LISTED else []
        lines = [f"  {printable(line)}" for line in [*faults[:_LISTED], *more]]
        raise DataError("\n".join([f"{number} in the rows of {self}:", *lines, "Fix or remove these rows."]))


def is_table(path: str | Path) -> bool:
    """Tell whether a path is read as a table: it ends like one, and no folder is called so."""
    return Path(path).suffix.lower() in TABLE_SUFFIXES and not Path(path).expanduser().is_dir()


def read_table(path: str | Path, *, errors: Literal["strict", "surrogateescape"] = "strict") -> Table:
    """Read a table.

    Args:
        path: the file; its ending says what it is.
        errors: what to do about bytes that are not UTF-8: refuse them, or keep them as Python keeps those in
            names of files.

    Raises:
        DataError: no such file, or one that is no table.
        MachineError: a Parquet file, and nothing installed that reads it.
    """
    given, path = path, Path(path).expanduser().absolute()
    shown = printable(str(path))
    if not path.exists():
        raise DataError(f"no such table: {shown}.{where_paths_begin(given)}")
    if not path.is_file():
        raise DataError(f"{shown} is not a regular file; expected a table.")
    try:
        table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path, errors)
    except OSError as error:
        raise DataError(f"cannot read {shown}: {(error.strerror or str(error)).lower()}.") from None
    _check_header(table)
    if not table.rows:
        raise DataError(f"{shown} has no rows below its column names.")
    return table


def _read_text(path: Path, errors: Literal["strict", "surrogateescape"]) -> Table:
    text = _decode(path, path.read_bytes(), errors)
    if not text.strip():
        raise DataError(
            f"{printable(str(path))} is empty; expected column names, then a line for each image."
        )
    records = _records(path, text, "\t" if path.suffix.lower() == ".tsv" else _separator(text))
    (_, header), *body = records
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
    )
    if wrong:
        table.refuse(wrong)
    return table


def _decode(path: Path, content: bytes, errors: Literal["strict", "surrogateescape"]) -> str:
    shown = printable(str(path))
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise DataError(f"{shown} is UTF-16 or no text at all; save it as CSV in UTF-8.")
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{content[error.start]:02x}"
        raise DataError(f"{shown}:{line}: not UTF-8 ({byte}); save the table as CSV in UTF-8.") from None


def _separator(text: str) -> str:
    """Return the separator that cuts the column names into the most cells; of equals the first."""
    first = text.lstrip("\r\n").splitlines()[0]
    return max(_SEPARATORS, key=lambda separator: len(next(csv.reader([first], delimiter=separator))))


def _records(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Return the line that each record begins on, and its cells; records without text are left out."""
    # Where column names have blanks before them (`image, label`), cells have them too, and they are no part
    # of a name; elsewhere a name may begin with one.
    spaced = f"{separator} " in text.lstrip("\r\n").splitlines()[0]
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=spaced, strict=True)
    records, line = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        endless = "unexpected end" in str(error) or "field limit" in str(error)
        what = "a quote opens here and is not closed" if endless else str(error)
        raise DataError(f"{printable(str(path))}:{line}: {what}; double a quote inside a cell.") from None
    return records


def _read_parquet(path: Path) -> Table:
    """Read Parquet with pandas.

    Numbers, truth values and dates become text, and what is missing becomes empty text. Columns of anything
    else, such as pixels, are left out.
    """
    shown = printable(str(path))
    try:
        import pyarrow
    except ImportError:
        raise MachineError(
            f"{shown}: reading Parquet takes pyarrow, which is not installed.\n"
            "Install it with `pip install pyarrow`, or save the table as CSV."
        ) from None
    import pandas  # nearly a second of import, only for those who use it

    try:
        # These types keep whole numbers whole where cells are missing: class 3 must not become class 3.0.
        frame = pandas.read_parquet(path, engine="pyarrow", dtype_backend="numpy_nullable")
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{shown} is not a Parquet file that can be read: {error}.") from None
    texts = {str(name).strip(): [_as_text(value) for value in frame[name].astype(object)] for name in frame}
    columns = {name: texts[name] for name in texts if None not in texts[name]}
    rows = list(zip(*columns.values(), strict=True))
    numbers = [number for number, row in enumerate(rows, start=1) if any(row)]
    return Table(
        path,
        tuple(columns),
        rows=tuple(rows[number - 1] for number in numbers),
        numbers=tuple(numbers),
        unit="row",
    )


def _as_text(value: object) -> str | None:
    """Return a value as text, empty where it is missing; None for what is no single value."""
    if isinstance(value, bytes | dict) or (hasattr(value, "__len__") and not isinstance(value, str)):
        return None
    if value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


def _check_header(table: Table) -> None:
    repeated = sorted(name for name, number in Counter(table.header).items() if name and number > 1)
    if repeated:
        raise DataError(f"{table} has several columns called {', '.join(map(repr, repeated))}; rename them.")
