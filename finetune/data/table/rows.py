"""The rows of a table as labelled images, with every fault of every row found at once."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.choices import Split, split_of
from finetune.data.metadata import is_number
from finetune.data.table.columns import ROLES, Columns, Role, find_column, find_metadata, unused_columns
from finetune.data.table.labels import find_label_cells
from finetune.data.table.reader import Table


class ImageRow(NamedTuple):
    """What one row says of one image."""

    name: str
    """POSIX path relative to the folder of the images, without detours; absolute if it lies outside"""
    labels: tuple[str, ...] | None
    """one, unless an image may have several; None if labels were not asked for"""
    split: Split | None
    """None if the table has no column for it"""
    group: str | None
    """None if the table has no column for it"""
    place: str
    """`line 7`"""
    metadata: tuple[str, ...] = ()
    """cells of the columns with facts beside the image, without blanks around them"""


def read_rows(
    table: Table,
    root: Path,
    columns: Columns,
    *,
    required: tuple[Role, ...] = ("image", "label"),
    wanted: Iterable[Role] = ROLES,
) -> tuple[list[ImageRow], tuple[str, ...]]:
    """Return what each row says, and the names of the columns that are not used.

    Args:
        table: the table.
        root: folder that the paths in it are relative to.
        columns: names of columns, where they were given.
        required: the columns that must be there; the others may.
        wanted: the columns to read; others are not looked for.

    Raises:
        ConfigError: a column that was named is not there.
        DataError: a required column is missing; or empty cells, splits that are none, images that stand in
            several rows, whether these agree or not.
    """
    several = find_label_cells(table, columns) if columns.multilabel and "label" in wanted else None
    places: dict[Role, int | None] = {
        role: find_column(table, role, columns, required=role in required)
        for role in wanted
        if role != "label" or several is None
    }
    used = {role: position for role, position in places.items() if position is not None}
    of_labels = () if several is None else several.positions
    facts = find_metadata(table, columns, [*used.items(), *(("label", position) for position in of_labels)])
    faults: list[str] = []
    rows: dict[str, ImageRow] = {}
    for number, cells in enumerate(table.rows):
        said = {role: cells[position] for role, position in used.items()}
        labels = _label_of(said) if several is None else several.names(cells)
        row = _image_row(said, labels, root, table.place(number))
        row = row._replace(metadata=tuple(cells[position].strip() for position in facts))
        wrong = (
            _cell_faults(said)
            or (several and several.fault(cells))
            or _repetition(row, rows.get(row.name))
            or number_fault(columns, row.metadata)
        )
        if wrong:
            faults.append(f"{row.place}: {wrong}")
        else:
            rows[row.name] = row
    if faults:
        table.refuse(faults)
    return list(rows.values()), unused_columns(table, {*used.values(), *of_labels, *facts})


def number_fault(columns: Columns, cells: Sequence[str]) -> str | None:
    """Say which of the cells beside an image is no number though its column is one of numbers."""
    for (name, kind), cell in zip(columns.metadata.items(), cells, strict=True):
        if kind == "number" and cell and not is_number(cell):
            return f"{name} {cell!r} is no number; leave a cell empty if it is not known"
    return None


def image_names(table: Table, root: Path, columns: Columns) -> list[str]:
    """Return the image of each row, in order, whatever else the table holds.

    Raises:
        ConfigError, DataError: no column for the image, or one with empty cells.
    """
    position = find_column(table, "image", columns, required=True)
    assert position is not None
    cells = table.column(position)
    faults = [f"{table.place(n)}: the image is empty" for n, cell in enumerate(cells) if not cell.strip()]
    if faults:
        table.refuse(faults)
    return [_relative(cell, root) for cell in cells]


def _label_of(said: Mapping[Role, str]) -> tuple[str, ...] | None:
    return (said["label"],) if "label" in said else None


def _image_row(said: Mapping[Role, str], labels: tuple[str, ...] | None, root: Path, place: str) -> ImageRow:
    split = said.get("split")
    return ImageRow(
        name=_relative(said["image"], root),
        labels=labels,
        split=None if split is None else split_of(split),
        group=said.get("group"),
        place=place,
    )


def _cell_faults(said: Mapping[Role, str]) -> str | None:
    """Say what is wrong with the cells of one row, if anything is."""
    empty = [role for role, cell in said.items() if not cell.strip()]
    if empty:
        return f"the {' and the '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty"
    if "\0" in said["image"]:
        return f"{said['image']!r} cannot be the name of a file"
    if "://" in said["image"]:
        return f"{said['image']!r} is a web address; download the images first"
    split = said.get("split")
    if split is not None and split_of(split) is None:
        return f"split {split!r} is none of train, val (valid, validation) and test"
    return None


def _repetition(row: ImageRow, earlier: ImageRow | None) -> str | None:
    """Say how a row repeats an earlier one of the same image, and whether the two agree."""
    if earlier is None:
        return None
    for what, here, there in (
        ("label", _shown(row.labels), _shown(earlier.labels)),
        ("split", row.split, earlier.split),
        ("group", row.group, earlier.group),
    ):
        if here != there:
            return f"{row.name}: {what} {here!r}, but {there!r} in {earlier.place}"
    return f"{row.name}: repeats {earlier.place}"


def _shown(labels: tuple[str, ...] | None) -> str:
    return ", ".join(labels or ())


def _relative(cell: str, root: Path) -> str:
    """Write a path one way, so that `a/./b.jpg` and `a/b.jpg` are one image."""
    path = Path(os.path.normpath(root / cell))
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.as_posix() if os.path.isabs(cell) else Path(os.path.relpath(path, root)).as_posix()
