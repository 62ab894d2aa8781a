"""Tables in JSON: a list of objects, an object by file or by class, columns, or an object on each line."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.table.ground_truth import answers_of
from finetune.data.table.json_objects import LIST_SEPARATOR, NUMBER, are_files, rows_of_object
from finetune.errors import DataError
from finetune.text import printable, shortened

_PEOPLE = frozenset(("completed_by", "annotator", "annotator_id", "worker_id", "created_by", "lead_time"))
"""keys of objects that are each what one person said"""
_DEEPEST = 8
_MOST_COLUMNS = 10_000


@dataclass
class JsonRows:
    """Rows from JSON, with a cell of text for each column that any of them has."""

    path: Path
    columns: dict[str, int] = field(default_factory=dict)
    """position of each column by its name"""
    lists: set[str] = field(default_factory=set)
    """columns with lists of texts in some cells"""
    rows: list[dict[str, str]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    """what was made of them, for the line that describes the table"""

    def add(self, number: int, values: Mapping[str, Any]) -> None:
        """Add a row; what is nested in it becomes columns such as `data.image`."""
        row: dict[str, str] = {}
        self._flatten(values, "", row, 0)
        for name in row:
            self.columns.setdefault(name, len(self.columns))
        if len(self.columns) > _MOST_COLUMNS:
            raise DataError(
                f"{printable(str(self.path))}: its objects have more than {_MOST_COLUMNS:,} different keys; "
                "expected an object for each image."
            )
        self.rows.append(row)
        self.numbers.append(number)

    def cells(self) -> tuple[tuple[str, ...], ...]:
        """Return the cells of all rows; what a row does not have is empty."""
        return tuple(tuple(row.get(name, "") for name in self.columns) for row in self.rows)

    def _flatten(self, values: Mapping[str, Any], prefix: str, row: dict[str, str], depth: int) -> None:
        for key, value in values.items():
            name = f"{prefix}{key}".strip()
            if isinstance(value, dict):
                if depth < _DEEPEST:
                    self._flatten(value, f"{name}.", row, depth + 1)
            elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                if depth < _DEEPEST:
                    self._join(value, f"{name}.", row, depth + 1)
            elif isinstance(value, list):
                if all(isinstance(one, str | int) for one in value):
                    self.lists.add(name)
                    row[name] = LIST_SEPARATOR.join(map(as_text, value))
            else:
                row[name] = as_text(value)

    def _join(
        self, values: Sequence[Mapping[str, Any]], prefix: str, row: dict[str, str], depth: int
    ) -> None:
        """Add what several objects say of an image: all marks in a picture, or what several people said.

        Of people, who are known by their keys, only what they agree in counts.
        """
        found: dict[str, dict[str, None]] = {}
        for value in values:
            one: dict[str, str] = {}
            self._flatten(value, prefix, one, depth)
            for name, text in one.items():
                found.setdefault(name, {})[text] = None
        people = any(_PEOPLE & value.keys() for value in values)
        for name, texts in found.items():
            if len(texts) == 1:
                row[name] = next(iter(texts))
            elif not people and not all(map(NUMBER.fullmatch, texts)):  # numbers are where the marks are
                self.lists.add(name)
                row[name] = LIST_SEPARATOR.join(texts)


def as_text(value: object) -> str:
    """Return a value of JSON as the text of a cell; null is empty."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_json(path: Path, text: str, names_file: Callable[[str], bool]) -> JsonRows:
    """Read a `.json` file.

    Args:
        path: the file, for messages.
        text: its text.
        names_file: tells whether some text is the name of an image.

    Raises:
        DataError: it is not JSON, or none that holds rows.
    """
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        if "Extra data" in error.msg and text.lstrip().startswith("{"):
            return read_json_lines(path, text)
        raise DataError(f"{printable(str(path))}:{error.lineno}: not JSON ({error.msg}).") from None
    except (ValueError, RecursionError) as error:
        raise _refusal(path, _reason(error)) from None
    if isinstance(value, list):
        if all(isinstance(one, str) for one in value) and are_files(value, names_file):
            value = [{"image": one} for one in value]
        return _from_objects(path, enumerate(value, start=1))
    if not isinstance(value, dict) or not value:
        raise _refusal(path, "it holds no rows")
    try:
        found, notes = rows_of_object(value, names_file)
    except ValueError as error:
        raise _refusal(path, str(error)) from None
    rows = _from_objects(path, enumerate(found, start=1))
    rows.notes = notes
    return rows


def read_json_lines(path: Path, text: str) -> JsonRows:
    """Read a `.jsonl` file: an object on each line.

    Raises:
        DataError: a line is something else.
    """
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append((number, answers_of(parse_json(line))))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{printable(str(path))}:{number}: not JSON ({error.msg}); expected an object on each line."
            ) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{printable(str(path))}:{number}: {_reason(error)}.") from None
    return _from_objects(path, found)


def spread_objects(path: Path, header: Sequence[str], records: Sequence[tuple[int, list[str]]]) -> JsonRows:
    """Return the rows of a table with what is nested in cells of JSON objects as columns, as of JSON.

    A column is spread if all of its cells are objects: `{"kind": "cat"}`.
    """
    rows = JsonRows(path)
    objects = {
        n: found for n in range(len(header)) if (found := _objects([cells[n] for _, cells in records]))
    }
    for position, (number, cells) in enumerate(records):
        values = {name: objects[n][position] if n in objects else cells[n] for n, name in enumerate(header)}
        rows.add(number, values)
    return rows


def _objects(cells: Sequence[str]) -> list[dict[str, Any]]:
    """Return the objects that cells hold; nothing if one holds something else."""
    if not all(cell.startswith("{") for cell in cells):
        return []
    try:
        found = [parse_json(cell) for cell in cells]
    except (ValueError, RecursionError):
        return []
    return found if all(isinstance(one, dict) for one in found) else []


def parse_json(text: str) -> Any:
    """Read JSON with its numbers as they are written, as in other tables.

    Raises:
        ValueError: it is none, or has two values for one key.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
        text, object_pairs_hook=_without_repetition, parse_int=str, parse_float=str, parse_constant=str
    )


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse two values of one key, of which JSON's readers keep the last without a word."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            raise ValueError(f"the key {shortened(key)!r} stands twice in an object, with different values")
        values[key] = value
    return values


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else shortened(str(error), 200)


def _refusal(path: Path, reason: str) -> DataError:
    return DataError(
        f"{printable(str(path))}: {printable(reason)}; expected a list of objects such as "
        '[{"image": "a.jpg", "label": "cat"}], or an object such as {"a.jpg": "cat"}.'
    )


def _from_objects(path: Path, values: Iterable[tuple[int, Any]]) -> JsonRows:
    rows = JsonRows(path)
    for number, value in values:
        if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
            value = {f"column {position}": one for position, one in enumerate(value, start=1)}
        if not isinstance(value, dict):
            raise _refusal(path, f"{shortened(repr(value), 60)} is no object (number {number:,})")
        rows.add(number, value)
    return rows
