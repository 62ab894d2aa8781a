"""Find the Parquet files of a data set as dataset hubs name them: `data/train-00000-of-00002.parquet`."""

import re
from pathlib import Path

from finetune.choices import Split, split_of
from finetune.data.archives.parquet_members import image_columns
from finetune.data.archives.refusal import refuse_parquet
from finetune.data.image_files import archive_of, list_entries
from finetune.data.indexing.find_images import holds_images, list_folders
from finetune.errors import DataError
from finetune.text import printable, quoted

_PART = re.compile(r"(?:(.*?)[-_])?(?:part[-_])?\d+(?:[-_]of[-_]\d+)?")
"""the name of a part of a split without its ending: of `train-00000-of-00002`, `train_1`, `0000`"""
_NO_SPLITS = ("part", "shard", "data", "default")
_BESIDE = ("", "data", "default")
"""folders in which the files of a data set lie, but for those of its splits"""


def find_shards(root: Path) -> dict[str, Split]:
    """Return the Parquet files with images in a folder, relative to it, and the split that each is of.

    Nothing where there are no such files, or images beside them.

    Raises:
        DataError: which splits the files are of cannot be told, or they are in an archive.
    """
    files = _parquet_files(root)
    if not files or holds_images(root):
        return {}
    if (archive := archive_of(root)) is not None:
        raise refuse_parquet(archive)
    if not image_columns(root / files[0]):
        return {}
    if len(files) == 1:
        return {files[0]: "train"}
    splits: dict[str, Split] = {}
    for file in files:
        split = split_of_file(file)
        if split is None:
            lines = "".join(f"\ndata.path: {printable(str(root / name))}" for name in files[:8])
            raise DataError(
                f"{printable(str(root))} holds several Parquet files, {quoted(files)}, and {file!r} is named "
                f"like no split. Which is the data set?{lines}"
            )
        splits[file] = split
    return splits


def _parquet_files(root: Path) -> list[str]:
    """Return the Parquet files in a folder, in the usual ones in it, and in those of splits."""
    folders = [name for name in ("", *list_folders(root)) if name in _BESIDE or split_of(name)]
    inside = [(folder, name) for folder in folders for name in _names(root / folder)]
    return sorted(f"{folder}/{name}".lstrip("/") for folder, name in inside)


def _names(folder: Path) -> list[str]:
    entries = list_entries(folder)
    return [e.name for e in entries if not e.is_folder and e.name.lower().endswith(".parquet")]


def split_of_file(file: str) -> Split | None:
    """Return the split of a file, from its name or its folder; a part without any is one to train on."""
    folder, _, name = file.rpartition("/")
    stem = name.rpartition(".")[0]
    part = _PART.fullmatch(stem)
    named = stem if part is None else part[1]
    named = None if named in _NO_SPLITS else named
    return (split_of(named) if named else None) or split_of(folder) or (None if named else "train")
