"""The rows of a table as labelled images, with every fault of every row found at once."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.choices import Split, split_of
from finetune.data.metadata import first_non_number, metadata_row
from finetune.data.table.columns import ROLES, Columns, Role, find_column, find_metadata, unused_columns
from finetune.data.table.labels import LabelCells, find_label_cells
from finetune.data.table.reader import Table


class ImageRow(NamedTuple):
    """What one row says of one image."""

    name: str
    """POSIX path relative to the folder of the images, without detours; absolute if it lies outside"""
    labels: tuple[str, ...] | None
    """one, unless an image may have several; None if labels are not read"""
    split: Split | None
    """None if the table has no column for it"""
    group: str | None
    """None if the table has no column for it"""
    place: str
    """`line 7`"""
    metadata: tuple[str, ...] = ()
    """cells of the metadata columns, without blanks around them"""


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
    found = _find_columns(table, columns, required, wanted)
    faults: list[str] = []
    rows: dict[str, ImageRow] = {}
    for number, cells in enumerate(table.rows):
        row, wrong = _read_row(cells, found, root, table.place(number))
        wrong = wrong or _repetition(row, rows.get(row.name)) or _number_fault(columns, row.metadata)
        if wrong:
            faults.append(f"{row.place}: {wrong}")
        else:
            rows[row.name] = row
    if faults:
        table.refuse(faults)
    return list(rows.values()), unused_columns(table, found.positions)


class _FoundColumns(NamedTuple):
    """Where the columns of a table are that are read."""

    roles: Mapping[Role, int]
    several: LabelCells | None
    """the labels of images that may have several classes; None where a label is one class"""
    metadata: Mapping[str, int]

    @property
    def positions(self) -> set[int]:
        """Return the positions of all of them."""
        labels = () if self.several is None else self.several.positions
        return {*self.roles.values(), *labels, *self.metadata.values()}


def _find_columns(
    table: Table, columns: Columns, required: tuple[Role, ...], wanted: Iterable[Role]
) -> _FoundColumns:
    several = find_label_cells(table, columns) if columns.multilabel and "label" in wanted else None
    roles = {
        role: position
        for role in wanted
        if role != "label" or several is None
        if (position := find_column(table, role, columns, required=role in required)) is not None
    }
    labels: list[tuple[Role, int]] = [] if several is None else [("label", p) for p in several.positions]
    return _FoundColumns(roles, several, find_metadata(table, columns, [*roles.items(), *labels]))


def _read_row(
    cells: Sequence[str], found: _FoundColumns, root: Path, place: str
) -> tuple[ImageRow, str | None]:
    """Return what a row says, and what is wrong with its cells, if anything is."""
    said = {role: cells[position] for role, position in found.roles.items()}
    labels = _label_of(said) if found.several is None else found.several.names(cells)
    metadata = {name: cells[position] for name, position in found.metadata.items()}
    row = _image_row(said, labels, root, place)._replace(metadata=metadata_row(metadata, metadata))
    wrong = _cell_faults(said)
    if wrong is None and found.several is not None:
        wrong = found.several.fault(cells)
    return row, wrong


def _number_fault(columns: Columns, row: tuple[str, ...]) -> str | None:
    """Say which cell of metadata is no number though its column is one of numbers."""
    found = first_non_number(columns.metadata, row)
    return found and f"{found[0]} {found[1]!r} is no number; leave a cell empty if it is not known"


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
