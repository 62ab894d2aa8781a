"""Open what is read as a table: a file, or those in the folders of splits, as platforms export them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.choices import SPLITS, Split, split_of
from finetune.data.data_layout import ANYHOW, FolderOptions, Layout
from finetune.data.image_files import is_folder, list_entries
from finetune.data.indexing.class_folders import data_folder, existing_folder
from finetune.data.indexing.find_images import find_images, is_image_name, list_folders
from finetune.data.indexing.label_files import find_label_files, refuse_part_of_voc
from finetune.data.indexing.numbered_lists import lists_folder, read_numbered_lists
from finetune.data.indexing.shards import find_shards
from finetune.data.indexing.table_beside import table_beside, tables_in
from finetune.data.indexing.two_readings import refuse_other_labels
from finetune.data.table import Columns, ImageFiles, ImageRow, Table, image_names, is_table, read_table
from finetune.data.table.columns import find_column
from finetune.data.table.guess import guess_columns
from finetune.errors import DataError
from finetune.text import expanded, printable, quoted, shortened

_USUAL = ("_classes.csv",)


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
        files = ImageFiles(table_root(path, image_folder))
        return OpenTable(read_table(path, files=files, encoding=columns.encoding), files)
    if not is_folder(root) or folders != ANYHOW:
        return None
    for folder in _down_to(root, data_folder(root)):
        if found := _split_tables(folder) or find_shards(folder):
            return OpenTable(_joined(folder, found, columns), ImageFiles(folder))
        if (labelled := find_label_files(folder, columns)) is not None:
            return OpenTable(labelled, ImageFiles(folder))
        if (beside := table_beside(folder, columns)) is not None:
            opened = open_table(beside, columns, image_folder)
            return opened and replace(opened, beside=True)
        refuse_other_labels(folder, columns)
    return None


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
        DataError: not one of the images is there.
    """
    if files.root is not None and not any(files.has(row.name) for row in rows):
        raise DataError(
            f"none of the {len(rows):,} images of {table} is in {printable(str(files.root))}, for instance "
            f"{printable(shortened(rows[0].name))}. Paths are relative to the table's folder, or "
            f"to data.image_folder.{_found_above(files.root, rows[0].name)}"
        )


def _found_above(root: Path, name: str) -> str:
    """Return the line that names the folder of an image, if that is above that of the table, or beside it."""
    for above in list(root.parents)[:2]:
        for folder in (above, *(above / inner for inner in list_folders(above))):
            if ImageFiles(folder).has(name):
                return f"\ndata.image_folder: {printable(str(folder))}"
    return ""


def _split_tables(root: Path) -> dict[str, Split]:
    """Return the tables in the folders of splits, relative to the root; none unless one is for training."""
    tables: dict[str, Split] = {}
    for folder in list_folders(root):
        split = split_of(folder)
        name = None if split is None else _only_table(root / folder)
        if split is not None and name is not None:
            tables[f"{folder}/{name}"] = split
    return tables if "train" in tables.values() else {}


def _only_table(folder: Path) -> str | None:
    """Return the table of a folder in which images lie directly, and not in folders of classes.

    Raises:
        DataError: there are several.
    """
    tables = tables_in(folder)
    images = (is_image_name(entry.name) for entry in list_entries(folder) if not entry.is_folder)
    if not tables or not any(images):
        return None
    if any(find_images(folder, below).images for below in list_folders(folder)):
        return None
    usual = [name for name in tables if name in _USUAL]
    if len(usual or tables) > 1:
        raise DataError(
            f"{printable(str(folder))} holds several tables: {quoted(tables)}; set data.path to the one that "
            "has the labels, or move the others away."
        )
    return (usual or tables)[0]


def _joined(root: Path, tables: dict[str, Split], columns: Columns) -> Table:
    """Return the tables of splits as one, with a column that says which split each row is from.

    Raises:
        DataError: they have different columns.
    """
    parts = [
        _part(root, name, split, columns)
        for split in SPLITS
        for name, of in sorted(tables.items())
        if of == split
    ]
    first = parts[0]
    for part in parts[1:]:
        if set(part.header) != set(first.header):
            differing = sorted(set(part.header) ^ set(first.header))
            raise DataError(
                f"{part} has other columns than {first}: {quoted(differing)} in one of them alone; the "
                "tables of all splits need the same."
            )
    order = [[part.header.index(name) for name in first.header] for part in parts]
    rows = [
        tuple(row[n] for n in places) for part, places in zip(parts, order, strict=True) for row in part.rows
    ]
    return replace(
        first,
        path=root,
        rows=tuple(rows),
        numbers=tuple(number for part in parts for number in part.numbers),
        files=tuple(part.path.relative_to(root).as_posix() for part in parts for _ in part.rows),
    )


def _part(root: Path, name: str, split: Split, columns: Columns) -> Table:
    """Return the table of one split: images relative to the root, and a column for the split."""
    path = root / name
    files = ImageFiles(path.parent)
    table = read_table(path, files=files, encoding=columns.encoding)
    known = guess_columns(table, files, columns, ("image",)).columns
    position = find_column(table, "image", known, required=True)
    below = path.parent.relative_to(root)
    images = [(below / image).as_posix() for image in image_names(table, files, known)]
    if find_column(table, "split", columns, required=False) is not None:
        rows = [_replaced(row, position, image) for row, image in zip(table.rows, images, strict=True)]
        return replace(table, rows=tuple(rows))
    rows = [(*_replaced(row, position, image), split) for row, image in zip(table.rows, images, strict=True)]
    return replace(table, header=(*table.header, "split"), rows=tuple(rows))


def _replaced(row: Sequence[str], position: int | None, cell: str) -> tuple[str, ...]:
    return tuple(cell if n == position else other for n, other in enumerate(row))
