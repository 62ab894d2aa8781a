"""Read an object of JSON as rows: of columns, by file, by class, around a list, or as a tool writes it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from finetune.data.table.coco import coco_rows, is_coco
from finetune.data.table.tool_json import datumaro_rows, is_datumaro, is_vott, vott_rows
from finetune.text import quoted

LIST_SEPARATOR = "|"
"""stands between the texts of a list in the cell that it becomes"""

NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")
"""a number, as JSON writes it"""

Rows = Iterable[Any]


def rows_of_object(
    value: Mapping[str, Any], names_file: Callable[[str], bool]
) -> tuple[Rows, tuple[str, ...]]:
    """Return what an object says of each image, as the objects of a list would, and what to say of that.

    Args:
        value: the object, with numbers as text.
        names_file: tells whether some text is the name of an image.

    Raises:
        ValueError: it is none that holds rows; the text says why.
    """
    if is_coco(value):
        return coco_rows(value, separator=LIST_SEPARATOR)
    if is_datumaro(value):
        return datumaro_rows(value, separator=LIST_SEPARATOR)
    if is_vott(value):
        return vott_rows(value)
    if isinstance(inner := value.get("_via_img_metadata"), dict) and inner:
        return rows_of_object(inner, names_file)
    return _plain_rows(value, names_file), ()


def _plain_rows(value: Mapping[str, Any], names_file: Callable[[str], bool]) -> Rows:
    parts = list(value.values())
    if value.keys() == {"classes", "labels"} and isinstance(value["labels"], dict):
        return _with_classes(value["classes"], value["labels"])
    if len(value) == 1 and isinstance(parts[0], list) and all(isinstance(one, dict) for one in parts[0]):
        return list(parts[0])
    if 2 * sum(map(names_file, value)) >= len(value):
        return [_of_file(*item) for item in value.items()]
    if all(
        isinstance(part, list) and (are_files(part, names_file) or _are_below(part, name))
        for name, part in value.items()
    ):
        return [{"image": one, "label": name} for name, part in value.items() for one in part]
    naming = [are_files(cells, names_file) for cells in _cells_by_key(parts)]
    if any(naming) and not all(naming):  # an object for each image, by numbers or the like
        return parts
    if (columns := _as_columns(value)) is not None:
        return columns
    if all(not isinstance(part, dict | list) for part in parts):
        return [_of_file(*item) for item in value.items()]
    raise ValueError(f"its keys are no files: {quoted(list(value)[:4])}")


def _of_file(name: str, value: Any) -> dict[str, Any]:
    return {"image": name} | value if isinstance(value, dict) else {"image": name, "label": value}


def _with_classes(classes: Any, labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an object of labels by file, of which numbers are positions in a list of classes."""
    names = list(classes) if isinstance(classes, list) else []

    def named(label: Any) -> Any:
        if isinstance(label, list):
            return [named(one) for one in label]
        if isinstance(label, dict):
            return named(label.get("label"))
        if not names or not isinstance(label, str) or not NUMBER.fullmatch(label):
            return label
        return (
            names[int(label)] if label.isdecimal() and len(label) < 10 and int(label) < len(names) else None
        )

    return [{"image": file, "label": named(label)} for file, label in labels.items()]


def _cells_by_key(parts: Sequence[Any]) -> list[list[Any]]:
    """Return the values of each key of some objects; nothing if they are no objects with keys in common."""
    if not all(isinstance(part, dict) for part in parts):
        return []
    common = set(parts[0]).intersection(*parts)
    return [[part[key] for part in parts] for key in sorted(common)]


def are_files(values: Sequence[Any], names_file: Callable[[str], bool]) -> bool:
    """Tell whether a list names files, half of it or more."""
    naming = sum(isinstance(value, str) and names_file(value) for value in values)
    return bool(values) and 2 * naming >= len(values)


def _are_below(values: Sequence[Any], folder: str) -> bool:
    """Tell whether a list holds paths in a folder alone: `{"cat": ["cat/1", …]}`."""
    return bool(values) and all(isinstance(one, str) and one.startswith(f"{folder}/") for one in values)


def _as_columns(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of an object that holds columns: lists of one length, or objects with the same keys."""
    parts = list(value.values())
    if all(isinstance(part, list) for part in parts) and len(set(map(len, parts))) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*parts, strict=True)]
    if all(isinstance(part, dict) and part.keys() == parts[0].keys() for part in parts):
        return [{name: part[key] for name, part in value.items()} for key in parts[0]]
    return None
