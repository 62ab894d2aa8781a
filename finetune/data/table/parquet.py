"""Read Parquet, whose cells have types, into cells of text."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.archives.parquet_members import (
    image_columns,
    member_names,
    open_parquet,
    readable_parquet,
)
from finetune.data.table.json_objects import LIST_SEPARATOR
from finetune.errors import DataError
from finetune.text import printable


@dataclass(frozen=True)
class ParquetCells:
    """What a Parquet file holds, as text."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    lists: frozenset[str]
    """columns of which cells hold several texts"""


def read_parquet(path: Path) -> ParquetCells:
    """Return the column names and the rows of a Parquet file.

    Numbers, truth values and dates become text, and what is missing becomes empty text; numbers of classes
    become their names, where the schema has some; images become the paths by which they are read. Columns of
    anything else are left out.

    Raises:
        DataError: it cannot be read.
        MachineError: nothing installed reads it.
    """
    schema = open_parquet(path).schema_arrow
    images = image_columns(path)
    names = class_names(schema.metadata or {})
    values = _values(path, [name for name in schema.names if name not in {one.name for one in images}])
    columns: dict[str, list[str]] = {}
    for one in images:
        members = member_names(path, one, only=len(images) == 1)
        columns[one.name.strip()] = [f"{path.as_posix()}/{member}" for member in members]
    lists = set()
    for name, cells in values.items():
        texts = [_with_names(cell, names.get(name, ())) for cell in cells]
        if all(text is not None for text in texts):
            columns[name.strip()] = [text or "" for text in texts]
            lists |= {name.strip()} if any(map(_is_list, cells)) else set()
    if len({len(cells) for cells in columns.values()}) > 1:
        raise DataError(f"{printable(str(path))} is damaged: its columns have different numbers of rows.")
    return ParquetCells(tuple(columns), list(zip(*columns.values(), strict=True)), frozenset(lists))


def class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, as dataset hubs write them into the schema of a file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {str(column): names for column, about in features.items() if (names := _names_in(about))}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return {}


def _names_in(about: Any) -> tuple[str, ...]:
    """Return the names of classes in the description of a column, also of one of lists."""
    while isinstance(about, list | dict):
        if isinstance(about, list):
            about = about[0] if about else None
        elif isinstance(names := about.get("names"), list):
            return tuple(map(str, names))
        else:
            about = about.get("feature")
    return ()


def _values(path: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of some columns as Python has them."""
    import pandas  # nearly a second of import, only for those who use it

    with readable_parquet(path):
        # These types keep whole numbers whole where cells are missing: class 3 must not become class 3.0.
        frame = pandas.read_parquet(
            path, engine="pyarrow", dtype_backend="numpy_nullable", columns=list(columns)
        )
    if frame.index.name is not None:
        frame = frame.reset_index()
    return {str(name): list(frame[name].astype(object)) for name in frame}


def _is_list(value: object) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | dict)


def _with_names(value: object, names: Sequence[str]) -> str | None:
    """Return a value as text, with the name of a class for its number."""
    if not names:
        return _as_text(value)
    if _is_list(value):
        texts = [_with_names(one, names) for one in value]  # type: ignore[attr-defined]
        return LIST_SEPARATOR.join(text for text in texts if text)
    text = _as_text(value)
    if text and text.lstrip("-").isdigit():
        number = int(text)
        return names[number] if 0 <= number < len(names) else ""
    return text


def _as_text(value: object) -> str | None:
    """Return a value as text, empty where it is missing; None for what is neither a value nor some texts."""
    if isinstance(value, bytes | dict):
        return None
    if _is_list(value):
        parts = list(value)  # type: ignore[call-overload]
        plain = all(isinstance(part, str | int) or hasattr(part, "item") for part in parts)
        return LIST_SEPARATOR.join(map(str, parts)) if plain and len(parts) <= 64 else None
    if value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)
