"""Find the table that says what the images in a folder are, where its folders do not."""

from pathlib import Path

from finetune.data.image_files import list_entries
from finetune.data.indexing.find_images import holds_images, list_folders, suffix_of
from finetune.data.indexing.split_folders import unwrapped
from finetune.data.indexing.split_names import splits_by_name
from finetune.errors import DataError
from finetune.text import printable, quoted

TABLE_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
"""of tables that are looked for in folders, where `.txt` is more often a text about the data"""

_DEEPEST = 10  # folders that are gone down


def tables_in(folder: Path) -> list[str]:
    """Return the names of the tables directly in a folder, without hidden ones."""
    names = [entry.name for entry in list_entries(folder) if not entry.is_folder]
    return sorted(name for name in names if not name.startswith(".") and suffix_of(name) in TABLE_ENDINGS)


def table_beside(root: Path) -> Path | None:
    """Return the one table beside the images in a folder that holds no class folders; None where none is.

    Raises:
        DataError: there are several.
    """
    tables = tables_in(root)
    if not tables or holds_class_folders(root) or not holds_images(root):
        return None
    if holds_class_folders(_innermost(root)):  # beside those, JSON is about the data, and no table of them
        tables = [name for name in tables if suffix_of(name) != ".json"]
    if not tables:
        return None
    if len(tables) > 1:
        lines = "".join(f"\ndata.path: {printable(str(root / name))}" for name in tables[:8])
        raise DataError(
            f"{printable(str(root))} holds images, no class folders and several tables, {quoted(tables)}. "
            f"Which says what the images are?{lines}"
        )
    return root / tables[0]


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
