"""The image of each row of a table."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.indexing.find_images import list_folders
from finetune.data.indexing.set_aside import ANNOTATIONS, COLLECTIONS, plain_folder
from finetune.data.table.columns import Columns, as_yaml, find_column
from finetune.data.table.files import ImageFiles, LocatedFiles
from finetune.data.table.guess import guess_columns
from finetune.data.table.reader import Table
from finetune.errors import DataError
from finetune.text import shortened


def image_column(table: Table, files: ImageFiles, columns: Columns) -> int:
    """Return the position of the column that names the images.

    Raises:
        ConfigError: a column that was named is not there.
        DataError: there is none, or several may be meant.
    """
    columns = guess_columns(table, files, columns, ("image",)).columns
    position = find_column(table, "image", columns, required=True)
    assert position is not None
    return position


def image_names(table: Table, files: ImageFiles, columns: Columns) -> list[str]:
    """Return the image of each row, in order, whatever else the table holds.

    Raises:
        ConfigError: a column that was named is not there.
        DataError: no column for the image, or one with empty cells or cells that fit several files.
    """
    position = image_column(table, files, columns)
    images = locate_images(table, position, files)
    faults = []
    for number, cell in enumerate(table.column(position)):
        fault = images.fault(number) if cell.strip() else "the image is empty"
        faults += [f"{table.place(number)}: {fault}"] if fault else []
    if faults:
        table.refuse(faults)
    return [images.name_of(number) for number in range(len(table.rows))]


@dataclass(frozen=True)
class RowImages:
    """The image of each row of a table."""

    cells: Sequence[str]
    files: ImageFiles
    located: LocatedFiles

    @property
    def notes(self) -> list[str]:
        """Say what was done to find them, if anything."""
        return [f"images {self.located.note}"] if self.located.note else []

    def name_of(self, row: int) -> str:
        """Return the file of a row; its cell where no file is found."""
        return self.files.name_of(self.cells[row], self.located)

    def fault(self, row: int) -> str | None:
        """Say that several files may be the image of a row, if they may."""
        names = self.located.found.get(self.cells[row], ())
        if len(names) < 2:
            return None
        some = " or ".join(shortened(name) for name in names[:3]) + (" or more" if len(names) > 3 else "")
        return f"{shortened(self.cells[row])!r} may be {some}; write which, or name their data.image_folder"


def locate_images(table: Table, position: int, files: ImageFiles) -> RowImages:
    """Find the images that a column names.

    Raises:
        DataError: a folder holds all of them, and another one files of the same names.
    """
    cells = table.column(position)
    located = files.locate(cells)
    if located.folders:
        root = files.root or Path()
        several = min(cell for cell, names in located.found.items() if len(names) > 1)
        keys = " or ".join(f"data.image_folder: {as_yaml(str(root / name))}" for name in located.folders[:4])
        raise DataError(
            f"{table}: the images of column {shortened(table.header[position])!r}, such as "
            f"{shortened(several)!r}, are in {len(located.folders):,} folders; set {keys}."
        )
    _refuse_annotations(table, position, located, files)
    return RowImages(cells, files, located)


def _refuse_annotations(table: Table, position: int, located: LocatedFiles, files: ImageFiles) -> None:
    """Refuse images that are found in a folder such as `trimaps`, which the table itself does not name.

    Raises:
        DataError: they are.
    """
    folders = {posixpath.dirname(names[0]) for names in located.found.values()}
    folder = folders.pop() if len(folders) == 1 else ""
    if plain_folder(posixpath.basename(folder)) not in ANNOTATIONS or files.root is None:
        return
    if any(posixpath.dirname(cell.replace("\\", "/")) for cell in located.found):
        return
    images = [files.root.parent / name for name in list_folders(files.root.parent)]
    meant = [path for path in images if plain_folder(path.name) in COLLECTIONS]
    lines = [f"data.image_folder: {as_yaml(str(path))}" for path in (*meant, files.root / folder)]
    raise DataError(
        f"{table}: the images of column {shortened(table.header[position])!r} are found in "
        f"{shortened(folder)!r} alone, whose name is one of annotations. Where are the images?\n"
        + "\n".join(lines)
    )
