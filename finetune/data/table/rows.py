"""The rows of a table as labelled images, with every fault of every row found at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune.choices import Split, split_of
from finetune.data.metadata import first_non_number, metadata_row
from finetune.data.table.class_list import names_of_numbers
from finetune.data.table.columns import Columns, find_column, find_metadata, unused_columns
from finetune.data.table.files import ImageFiles
from finetune.data.table.guess import guess_columns
from finetune.data.table.labels import LabelCells, find_label_cells
from finetune.data.table.reader import Table
from finetune.data.table.row_images import RowImages, locate_images
from finetune.data.table.usual_names import ROLES, Role
from finetune.text import counted, shortened

_SEVERAL = 'If an image may have several classes, each in a row of its own, set data.label_separator: "|".'


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


@dataclass(frozen=True)
class TableRows:
    """What the rows of a table say, and how that was found out."""

    rows: tuple[ImageRow, ...]
    """one for each image"""
    columns: Columns
    """the columns that were named, and those that were found by what they hold"""
    unused: tuple[str, ...]
    """columns of which nothing is made"""
    repeated: int = 0
    """rows that say again what another one says"""
    notes: tuple[str, ...] = ()
    """what was done to read them"""


def read_rows(
    table: Table,
    files: ImageFiles,
    columns: Columns,
    *,
    required: tuple[Role, ...] = ("image", "label"),
    wanted: Iterable[Role] = ROLES,
) -> TableRows:
    """Return what the rows of a table say of each image.

    Args:
        table: the table.
        files: the images that it may name.
        columns: names of columns, where they were given.
        required: the columns that must be there; the others may.
        wanted: the columns to read; others are not looked for.

    Raises:
        ConfigError: a column that was named is not there.
        DataError: a required column is missing, or several may be meant; or empty cells, splits that are
            none, images that several files may be or of which two rows say different things.
    """
    guessed = guess_columns(table, files, columns, required)
    columns = guessed.columns
    found = _find_columns(table, columns, required, wanted)
    images = locate_images(table, found.roles["image"], files)
    rows, repeated = _read_all(table, found, images, columns)
    names, line = names_of_numbers(table, [row.labels for row in rows])
    if names:
        rows = [_named(row, names) for row in rows]
    notes = (*guessed.notes, *images.notes, *line, *_notes(table, found, repeated))
    return TableRows(tuple(rows), columns, unused_columns(table, found.positions), repeated, notes)


def _read_all(
    table: Table, found: "_FoundColumns", images: RowImages, columns: Columns
) -> tuple[list[ImageRow], int]:
    """Return a row for each image, and how many more there are that say the same.

    Raises:
        DataError: rows that cannot be read, or contradict each other.
    """
    faults: list[str] = []
    rows: dict[str, ImageRow] = {}
    joins = columns.label_separator is not None
    of_single: set[str] = set()  # images whose rows name one class each
    for number, cells in enumerate(table.rows):
        row, wrong = _read_row(cells, found, images.name_of(number), table.place(number))
        if joins and wrong is None and len(row.labels or ()) == 1:
            earlier = rows.get(row.name)
            if earlier is None:
                of_single.add(row.name)
            elif row.name in of_single:
                row = row._replace(labels=_joined(earlier, row))
                rows[row.name] = earlier._replace(labels=row.labels)
        wrong = images.fault(number) or wrong or _contradiction(row, rows.get(row.name))
        wrong = wrong or _number_fault(columns, row.metadata)
        if wrong:
            faults.append(f"{row.place}: {wrong}")
        else:
            rows.setdefault(row.name, row)
    if faults:
        several = not joins and sum(": label " in fault for fault in faults) == len(faults)
        table.refuse(faults, _SEVERAL if several and not isinstance(columns.label, tuple) else "")
    return list(rows.values()), len(table.rows) - len(rows)


def _joined(earlier: ImageRow, row: ImageRow) -> tuple[str, ...]:
    """Return the classes that two rows name of one image that may have several."""
    return tuple(dict.fromkeys((*(earlier.labels or ()), *(row.labels or ()))))


def _named(row: ImageRow, names: Mapping[str, str]) -> ImageRow:
    """Return a row with the names of the classes of which it has the numbers."""
    return row._replace(labels=row.labels and tuple(names[label] for label in row.labels))


def _notes(table: Table, found: "_FoundColumns", repeated: int) -> list[str]:
    """Say what else was done to read a table."""
    lines = [] if table.headed else ["no column names, for the first row names a file"]
    if found.several is not None and (note := found.several.note(table.rows)) is not None:
        lines.append(note)
    label = found.roles.get("label")
    blanks = 0 if label is None else sum(cell != cell.strip() for cell in table.column(label))
    lines += [f"blanks around {counted(blanks, 'label')} dropped"] if blanks else []
    return lines + ([f"{counted(repeated, 'repeated row')} counted once"] if repeated else [])


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
    several = None
    if "label" in wanted and (columns.multilabel or isinstance(columns.label, tuple)):
        several = find_label_cells(table, columns)
    roles = {
        role: position
        for role in wanted
        if role != "label" or several is None
        if (position := find_column(table, role, columns, required=role in required)) is not None
    }
    labels: list[tuple[Role, int]] = [] if several is None else [("label", p) for p in several.positions]
    return _FoundColumns(roles, several, find_metadata(table, columns, [*roles.items(), *labels]))


def _read_row(
    cells: Sequence[str], found: _FoundColumns, name: str, place: str
) -> tuple[ImageRow, str | None]:
    """Return what a row says, and what is wrong with its cells, if anything is."""
    said = {role: cells[position] for role, position in found.roles.items()}
    labels = _label_of(said) if found.several is None else found.several.names(cells)
    metadata = {name: cells[position] for name, position in found.metadata.items()}
    row = _image_row(said, labels, name, place)._replace(metadata=metadata_row(metadata, metadata))
    wrong = _cell_faults(said, name)
    if wrong is None and found.several is not None:
        wrong = found.several.fault(cells)
    return row, wrong


def _number_fault(columns: Columns, row: tuple[str, ...]) -> str | None:
    """Say which cell of metadata is no number though its column is one of numbers."""
    found = first_non_number(columns.metadata, row)
    return found and f"{found[0]} {found[1]!r} is no number; leave a cell empty if it is not known"


def _label_of(said: Mapping[Role, str]) -> tuple[str, ...] | None:
    return (said["label"].strip(),) if "label" in said else None


def _image_row(said: Mapping[Role, str], labels: tuple[str, ...] | None, name: str, place: str) -> ImageRow:
    split = said.get("split")
    return ImageRow(
        name=name,
        labels=labels,
        split=None if split is None else split_of(split),
        group=said.get("group"),
        place=place,
    )


def _cell_faults(said: Mapping[Role, str], name: str) -> str | None:
    """Say what is wrong with the cells of one row, if anything is."""
    empty = [role for role, cell in said.items() if not cell.strip()]
    if empty:
        return f"the {' and the '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty"
    if "\0" in said["image"]:
        return f"{shortened(said['image'])!r} cannot be the name of a file"
    if "://" in said["image"] and ":/" in name:
        return f"{shortened(said['image'])!r} is a web address; download the images first"
    split = said.get("split")
    if split is not None and split_of(split) is None:
        return f"split {split!r} is none of train, val (valid, validation) and test"
    return None


def _contradiction(row: ImageRow, earlier: ImageRow | None) -> str | None:
    """Say how a row contradicts an earlier one of the same image, if it does."""
    if earlier is None:
        return None
    for what, here, there in (
        ("label", _shown(row.labels), _shown(earlier.labels)),
        ("split", row.split, earlier.split),
        ("group", row.group, earlier.group),
        ("metadata", ", ".join(row.metadata), ", ".join(earlier.metadata)),
    ):
        if here != there:
            return f"{row.name}: {what} {here!r}, but {there!r} in {earlier.place}"
    return None


def _shown(labels: tuple[str, ...] | None) -> str:
    return ", ".join(sorted(labels or ()))
