"""Open what is read as a table: a file, or those in the folders of splits, as platforms export them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.data.data_layout import ANYHOW, FolderOptions, Layout
from finetune.data.image_files import is_folder
from finetune.data.indexing.class_folders import data_folder, existing_folder
from finetune.data.indexing.cvat_file import read_cvat_file
from finetune.data.indexing.find_images import list_folders
from finetune.data.indexing.folder_labels import with_folder_labels
from finetune.data.indexing.label_files import find_label_files, refuse_part_of_voc
from finetune.data.indexing.numbered_lists import lists_folder, read_numbered_lists
from finetune.data.indexing.set_aside import ANNOTATIONS, COLLECTIONS, plain_folder
from finetune.data.indexing.shards import find_shards
from finetune.data.indexing.split_tables import (
    find_split_tables,
    join_split_tables,
    read_listed_splits,
    read_only_list,
)
from finetune.data.indexing.table_beside import table_beside, tables_in
from finetune.data.indexing.two_readings import refuse_other_labels, refuse_table_of_one_split
from finetune.data.table import Columns, ImageFiles, ImageRow, Table, is_table, read_table
from finetune.data.table.foreign_images import refuse_foreign_names
from finetune.errors import DataError
from finetune.text import expanded, printable, shortened

_KEY = "\ndata.image_folder: "


@dataclass(frozen=True)
class OpenTable:
    """A table, and the images that it may name."""

    table: Table
    files: ImageFiles
    beside: bool = False
    """whether a folder was named, and the table found in it"""

    def describe(self, layout: Layout | None) -> Layout | None:
        """Return a description with the name of a table that was found, and of those beside it."""
        if not self.beside or layout is None:
            return layout
        name, layout = self.table.path.name, replace(layout, remark=self.table.path.name)
        for other in tables_in(self.table.path.parent):
            layout = layout.without(f"table {other}", "says no class of images", int(other != name))
        return layout


def open_table(
    path: str | Path,
    columns: Columns,
    image_folder: str | Path | None = None,
    folders: FolderOptions = ANYHOW,
) -> OpenTable | None:
    """Open a table, those in the folders of splits, or the one beside images; None where there is none.

    Args:
        path: the table, or a folder.
        columns: what was said of its columns, and its encoding.
        image_folder: the folder that its images are in; None for its own.
        folders: how a folder is to be read; where that is said, no table in it is looked for.

    Raises:
        DataError: it cannot be read, tables do not fit each other, there are several, or one that says other
            classes than the folders beside it.
    """
    root = expanded(path).absolute()
    if folders == ANYHOW and image_folder is None and (lists := lists_folder(root)) is not None:
        return OpenTable(read_numbered_lists(lists), ImageFiles(lists))
    if folders == ANYHOW and image_folder is None:
        refuse_part_of_voc(root)
    if is_table(path):
        if image_folder is None and (only := _open_only_list(root, columns)) is not None:
            return only
        files = ImageFiles(table_root(path, image_folder))
        table = read_table(path, files=files, encoding=columns.encoding)
        return OpenTable(with_folder_labels(table, columns), files)
    if folders != ANYHOW:
        return None
    if not is_folder(root):
        return _open_cvat(root, image_folder)
    for folder in _down_to(root, data_folder(root)):
        if (opened := _open_in(folder, columns, image_folder)) is not None:
            return opened
        refuse_other_labels(folder, columns)
    return None


def _open_only_list(path: Path, columns: Columns) -> OpenTable | None:
    """Open a file of annotations with the images beside its folder, if no other file is in that."""
    above = path.parent.parent
    if plain_folder(path.parent.name) not in ANNOTATIONS:
        return None
    only = read_only_list(above, columns)
    return OpenTable(only, ImageFiles(above)) if only is not None and only.path == path else None


def _open_in(folder: Path, columns: Columns, image_folder: str | Path | None) -> OpenTable | None:
    """Open what says the classes of the images in a folder, if that is a table or takes the place of one."""
    if (lists := lists_folder(folder)) is not None:
        return OpenTable(read_numbered_lists(lists), ImageFiles(lists))
    if (annotated := _open_cvat(folder, image_folder)) is not None:
        return annotated
    if (labelled := find_label_files(folder, columns)) is not None:
        return OpenTable(labelled, ImageFiles(folder))
    if found := find_split_tables(folder) or find_shards(folder):
        return OpenTable(join_split_tables(folder, found, columns), ImageFiles(folder))
    if (listed := read_listed_splits(folder, columns)) is not None:
        return OpenTable(listed, ImageFiles(folder))
    if image_folder is None and (only := read_only_list(folder, columns)) is not None:
        return OpenTable(only, ImageFiles(folder))
    files = ImageFiles(folder if image_folder is None else expanded(image_folder).absolute())
    if (beside := table_beside(folder, files, columns)) is None:
        return None
    existing_folder(files.root or folder)
    refuse_table_of_one_split(beside, files, columns)
    return OpenTable(with_folder_labels(beside, columns), files, beside=True)


def _open_cvat(path: Path, image_folder: str | Path | None) -> OpenTable | None:
    table = read_cvat_file(path)
    return None if table is None else OpenTable(table, ImageFiles(table_root(table.path, image_folder)))


def _down_to(root: Path, folder: Path) -> list[Path]:
    """Return a folder and those in it on the way to another: what was packed is often in a folder."""
    parts = folder.relative_to(root).parts
    return [root.joinpath(*parts[:number]) for number in range(len(parts) + 1)]


def table_root(path: str | Path, image_folder: str | Path | None) -> Path:
    """Return the folder that the paths in a table are relative to: the one given, else the table's own."""
    if image_folder is None:
        return expanded(path).absolute().parent
    return existing_folder(image_folder)


def check_some_exist(table: Table, files: ImageFiles, rows: Sequence[ImageRow]) -> None:
    """Tell a folder that is the wrong one from single images that are missing, which the scan lists.

    Raises:
        DataError: not one of the images is there, or all are files of another program.
    """
    refuse_foreign_names(table, [row.name for row in rows])
    if files.root is not None and not any(files.has(row.name) for row in rows):
        folder = _found_above(files.root, rows[0].name)
        raise DataError(
            f"none of the {len(rows):,} images of {table} is in {printable(str(files.root))}, for instance "
            f"{printable(shortened(rows[0].name))}. Paths are relative to the table's folder, or "
            f"to data.image_folder.{'' if folder is None else f'{_KEY}{printable(str(folder))}'}"
        )


def folder_of_images(table: Table, files: ImageFiles, rows: Sequence[ImageRow]) -> Path | None:
    """Return the folder above a table, or beside it, that holds its images, where its own does not."""
    if files.root is None or not table.path.is_file() or any(files.has(row.name) for row in rows):
        return None
    return _found_above(files.root, rows[0].name)


def _found_above(root: Path, name: str) -> Path | None:
    """Return the folder of an image, if that is above another one, or beside it."""
    for above in list(root.parents)[:2]:
        inner = [above / name for name in list_folders(above)]
        usual = [path for path in inner if plain_folder(path.name) in COLLECTIONS]
        further = [path / below for path in usual for below in list_folders(path)]
        for folder in (above, *inner, *further):
            if ImageFiles(folder).holds(name):
                return folder
    return None
