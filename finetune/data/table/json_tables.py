"""Tables in JSON: a list of objects, an object by file or by class, columns, or an object on each line."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.table.coco import coco_rows, is_coco
from finetune.errors import DataError
from finetune.text import printable, shortened

LIST_SEPARATOR = "|"
"""stands between the texts of a list in the cell that it becomes"""
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
            while isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
                value = value[0]
            if isinstance(value, dict):
                if depth < _DEEPEST:
                    self._flatten(value, f"{name}.", row, depth + 1)
            elif isinstance(value, list):
                if all(isinstance(one, str | int) for one in value):
                    self.lists.add(name)
                    row[name] = LIST_SEPARATOR.join(map(as_text, value))
            else:
                row[name] = as_text(value)


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
        value = _parse(text)
    except json.JSONDecodeError as error:
        if "Extra data" in error.msg and text.lstrip().startswith("{"):
            return read_json_lines(path, text)
        raise DataError(f"{printable(str(path))}:{error.lineno}: not JSON ({error.msg}).") from None
    except (ValueError, RecursionError) as error:
        raise _refusal(path, _reason(error)) from None
    if isinstance(value, list):
        if all(isinstance(one, str) for one in value) and _are_files(value, names_file):
            value = [{"image": one} for one in value]
        return _from_objects(path, enumerate(value, start=1))
    if isinstance(value, dict) and value:
        return _from_object(path, value, names_file)
    raise _refusal(path, "it holds no rows")


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
            found.append((number, _parse(line)))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{printable(str(path))}:{number}: not JSON ({error.msg}); expected an object on each line."
            ) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{printable(str(path))}:{number}: {_reason(error)}.") from None
    return _from_objects(path, found)


def _parse(text: str) -> Any:
    """Read JSON with its numbers as they are written, as in other tables."""
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


def _from_object(path: Path, value: Mapping[str, Any], names_file: Callable[[str], bool]) -> JsonRows:
    """Read an object: of columns, by file, by class, or around the list of rows."""
    parts = list(value.values())
    if is_coco(value):
        return _from_coco(path, value)
    if len(value) == 1 and isinstance(parts[0], list) and all(isinstance(one, dict) for one in parts[0]):
        return _from_objects(path, enumerate(parts[0], start=1))
    by_file = sum(map(names_file, value))
    if 2 * by_file >= len(value):
        return _from_objects(path, enumerate((_of_file(*item) for item in value.items()), start=1))
    if all(isinstance(part, list) and _are_files(part, names_file) for part in parts):
        pairs = ({"image": one, "label": name} for name, part in value.items() for one in part)
        return _from_objects(path, enumerate(pairs, start=1))
    if (columns := _as_columns(value)) is not None:
        return _from_objects(path, enumerate(columns, start=1))
    if all(not isinstance(part, dict | list) for part in parts):
        return _from_objects(path, enumerate((_of_file(*item) for item in value.items()), start=1))
    keys = ", ".join(repr(shortened(key, 40)) for key in list(value)[:4])
    raise _refusal(path, f"its keys are no files: {keys}")


def _from_coco(path: Path, value: Mapping[str, Any]) -> JsonRows:
    try:
        found, notes = coco_rows(value, separator=LIST_SEPARATOR)
    except ValueError as error:
        raise _refusal(path, str(error)) from None
    rows = _from_objects(path, enumerate(found, start=1))
    rows.notes = notes
    return rows


def _of_file(name: str, value: Any) -> dict[str, Any]:
    return {"image": name} | value if isinstance(value, dict) else {"image": name, "label": value}


def _are_files(values: Sequence[Any], names_file: Callable[[str], bool]) -> bool:
    """Tell whether a list names files, half of it or more."""
    texts = [value for value in values if isinstance(value, str)]
    return bool(values) and 2 * sum(map(names_file, texts)) >= len(values)


def _as_columns(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of an object that holds columns: lists of one length, or objects with the same keys."""
    parts = list(value.values())
    if all(isinstance(part, list) for part in parts) and len(set(map(len, parts))) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*parts, strict=True)]
    if all(isinstance(part, dict) and part.keys() == parts[0].keys() for part in parts):
        return [{name: part[key] for name, part in value.items()} for key in parts[0]]
    return None
