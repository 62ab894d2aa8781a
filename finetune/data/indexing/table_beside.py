"""Find the table that says what the images in a folder are, where its folders do not."""

import re
from pathlib import Path

from finetune.choices import TABLE_SUFFIXES
from finetune.data.image_files import list_entries
from finetune.data.indexing.find_images import holds_images, list_folders, suffix_of
from finetune.data.indexing.split_folders import unwrapped
from finetune.data.indexing.split_names import splits_by_name
from finetune.data.table import Columns, ImageFiles, Table, guess_columns, read_table
from finetune.data.table.guess import find_label
from finetune.data.table.row_images import image_column
from finetune.errors import DataError, FinetuneError
from finetune.text import printable, quoted

TABLE_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".manifest", ".parquet")
"""of tables that are looked for in folders, where `.txt` is more often a text about the data"""

_DEEPEST = 10  # folders that are gone down
_MOST = 20  # tables in a folder; more are each about one image
_ABOUT = re.compile(
    r"\.|readme|licen[cs]e|notes?\.|requirements|class(es|_names)\.|synsets|dataset_info", re.IGNORECASE
)


def tables_in(folder: Path) -> list[str]:
    """Return the names of the tables directly in a folder, without hidden ones."""
    names = [entry.name for entry in list_entries(folder) if not entry.is_folder]
    return sorted(name for name in names if not name.startswith(".") and suffix_of(name) in TABLE_ENDINGS)


def table_beside(root: Path, files: ImageFiles, columns: Columns) -> Table | None:
    """Return the one table beside the images in a folder that holds no class folders; None where none is.

    Of several the one that says classes of images, where only one does: `train.csv` beside `test.csv`,
    `sample_submission.csv` and names of numbers.

    Args:
        root: the folder.
        files: the images that a table may name.
        columns: what was said of its columns, and its encoding.

    Raises:
        DataError: there are several, or it cannot be read.
    """
    tables = [name for name in tables_in(root) if "submission" not in name.casefold()]
    if not tables or holds_class_folders(root) or not holds_images(root):
        return None
    if holds_class_folders(_innermost(root)):  # beside those, JSON is about the data, and no table of them
        tables = [name for name in tables if suffix_of(name) != ".json"]
    if len(tables) == 1:
        return read_table(root / tables[0], files=files, encoding=columns.encoding)
    few = len(tables) <= _MOST
    read = {name: table for name in tables if few and (table := _may_label(root / name, files, columns))}
    if len(read) > 1 or not few:
        tables = list(read) or tables
        lines = "".join(f"\ndata.path: {printable(str(root / name))}" for name in tables[:8])
        raise DataError(
            f"{printable(str(root))} holds images, no class folders and several tables, {quoted(tables)}. "
            f"Which says what the images are?{lines}"
        )
    return next(iter(read.values()), None)


def _may_label(path: Path, files: ImageFiles, columns: Columns) -> Table | None:
    """Return a table that names images and may have their classes; None for any other."""
    try:
        table = read_table(path, files=files, encoding=columns.encoding)
        image = image_column(table, files, columns)
        if not files.locate(table.column(image)[:_MOST]).found:
            return None
        guessed = guess_columns(table, files, columns, ("label",)).columns
    except DataError as error:  # several columns may hold the label, or none can
        doubtful = "data.columns.label" in str(error) and "has no column" not in str(error)
        return table if doubtful else None
    except FinetuneError:
        return None
    return None if find_label(table, guessed) is None else table


def tables_hint(root: Path) -> str:
    """Name the first tables in a folder, or in others in it, that may say what its images are."""
    found = [name for folder in _without_images(root) for name in _possible_tables(root, folder)]
    if not found:
        return ""
    images = f" with data.image_folder: {printable(str(root))}" if "/" in found[0] else ""
    more = f" (or {quoted(found[1:3])})" if found[1:] else ""
    return f"\nOr does a table say the classes? data.path: {printable(str(root / found[0]))}{images}{more}"


def _without_images(root: Path) -> list[str]:
    """Return the folder itself, and those in it, and in these, that hold no images."""
    folders = [""]
    for folder in folders:
        inside = [f"{folder}/{name}".lstrip("/") for name in list_folders(root / folder)]
        folders += [name for name in inside if name.count("/") < 2 and not holds_images(root / name)]
    return folders


def _possible_tables(root: Path, folder: str) -> list[str]:
    """Return the tables of a folder but for texts about the data, unless there are very many."""
    names = [entry.name for entry in list_entries(root / folder) if not entry.is_folder]
    tables = [n for n in sorted(names) if suffix_of(n) in TABLE_SUFFIXES and not _ABOUT.match(n)]
    return [f"{folder}/{name}".lstrip("/") for name in tables] if len(tables) <= _MOST else []


def _innermost(folder: Path) -> Path:
    """Return the folder that one folder alone in another leads to."""
    for _ in range(_DEEPEST):
        if len(names := list_folders(folder)) != 1:
            break
        folder /= names[0]
    return folder


def holds_class_folders(root: Path) -> bool:
    """Tell whether a folder, or that of a split in it, holds two folders of images or more."""
    names = list_folders(root)
    splits = splits_by_name(names)
    if _count(root, [name for name in names if name not in splits]) > 1:
        return True
    inside = [root / unwrapped(root, name) for name in splits]
    return any(_count(folder, list_folders(folder)) > 1 for folder in inside)


def _count(root: Path, folders: list[str]) -> int:
    return sum(holds_images(root / name) for name in folders)
