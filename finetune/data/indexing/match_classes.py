"""Index images that a trained model has not seen, with the classes that it knows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.choices import Split
from finetune.data.data_layout import ANYHOW, FolderOptions
from finetune.data.index import ImageIndex
from finetune.data.indexing.build import folder_samples
from finetune.data.indexing.class_folders import FoundParts, existing_folder, part_warnings
from finetune.data.indexing.find_images import list_folders
from finetune.data.indexing.fit_metadata import apply_metadata
from finetune.data.indexing.folder_layout import folder_layout
from finetune.data.indexing.from_table import check_some_exist, samples_of, table_root
from finetune.data.indexing.part import find_split_parts
from finetune.data.indexing.split_folders import find_evaluated_folder
from finetune.data.indexing.table_layout import table_layout
from finetune.data.metadata import Metadata
from finetune.data.table import USUAL_COLUMNS, Columns, Table, is_table, read_rows, read_table
from finetune.errors import DataError
from finetune.task import task_of
from finetune.text import printable, quoted


@dataclass(frozen=True)
class MatchedIndex:
    """A folder or a table of images seen with the classes of a trained model."""

    index: ImageIndex
    """all its samples are of the split `test`"""
    unknown: Mapping[str, int]
    """classes that the model does not know, with their number of images; the index has not these labels, nor
    an image that has no other, unless images may have several classes"""
    missing: tuple[str, ...]
    """classes of the model without an image"""


def match_classes(
    path: str | Path,
    class_names: Sequence[str],
    *,
    columns: Columns = USUAL_COLUMNS,
    metadata: Metadata | None = None,
    split: Split = "val",
    folders: FolderOptions = ANYHOW,
) -> MatchedIndex:
    """Index a folder of class folders, or a table, for evaluation.

    Args:
        path: the folder or table.
        class_names: the classes of the model.
        columns: names of the table's columns, where they were given.
        metadata: what the model knows of metadata beside an image; None if nothing. What the data does not
            tell counts as missing, and is warned of.
        split: which rows of a table that has a split column, or which folder of one with `train/` and `val/`.
        folders: how the folder was read that the model was trained on. It counts where no folder of a class
            that the model knows is there.

    Raises:
        ConfigError: a column that was named is not there.
        DataError: no image of a class that the model knows.
    """
    table = read_table(path) if is_table(path) else None
    present = _present(columns, () if table is None else table.header)
    if table is not None:
        found = _match_table(table, class_names, present, split)
    elif columns.multilabel:
        raise DataError(
            f"{printable(str(path))} is no table: the model gives an image several classes, and folders say "
            "only one.\nName a table with the columns of the one that it was trained on."
        )
    else:
        found = _match_folder(path, class_names, split, folders)
    if metadata is None:
        return found
    source = printable(str(path))
    return replace(found, index=apply_metadata(found.index, list(present.metadata), metadata, source))


def _present(columns: Columns, header: Sequence[str]) -> Columns:
    """Return the columns with those of metadata that the data really has."""
    return replace(
        columns, metadata={name: kind for name, kind in columns.metadata.items() if name in header}
    )


def _match_folder(
    path: str | Path, class_names: Sequence[str], split: Split, options: FolderOptions
) -> MatchedIndex:
    root = existing_folder(path)
    folder = find_evaluated_folder(root, class_names, split, options)
    if set(class_names) & set(list_folders(root / folder)):
        options = ANYHOW
    (part,) = find_split_parts(root, {"test": folder}, options)
    samples = folder_samples([part], class_names)
    if not samples:
        raise DataError(
            f"no image of a class that the model knows in {part}: the folders there are "
            f"{quoted(part.counts) or 'none'}, the model knows {quoted(class_names)}."
        )
    ignored, layout = dict(part.found.ignored), folder_layout(FoundParts((part,)), options)
    warnings = tuple(part_warnings(part))
    index = ImageIndex(root, tuple(class_names), samples, warnings, ignored, layout=layout)
    return _matched(index, part.counts)


def _match_table(table: Table, class_names: Sequence[str], columns: Columns, split: Split) -> MatchedIndex:
    root = table_root(table.path, None)
    rows, unused = read_rows(table, root, columns)
    splits = Counter(row.split for row in rows if row.split is not None)
    rows = [row for row in rows if row.split in (None, split)]
    if not rows:
        there = ", ".join(f"{number} {name}" for name, number in splits.items())
        raise DataError(f"{table} has no {split} rows; it has {there}. Choose with --split.")
    check_some_exist(table, root, rows)
    task = task_of(columns.multilabel)
    samples = samples_of(rows, class_names, task, keep_split=False)
    counts = Counter(name for row in rows for name in row.labels or ())
    if not counts.keys() & set(class_names):
        raise DataError(
            f"no image of a class that the model knows in {table}: the labels there are "
            f"{quoted(counts) or 'none'}, "
            f"the model knows {quoted(class_names)}."
        )
    layout = table_layout(table, columns, rows, unused)
    index = ImageIndex(root, tuple(class_names), samples, task=task, layout=layout)
    return _matched(index, counts)


def _matched(index: ImageIndex, counts: Mapping[str, int]) -> MatchedIndex:
    known = set(index.class_names)
    unknown = {name: number for name, number in counts.items() if number and name not in known}
    return MatchedIndex(index, unknown, tuple(name for name in index.class_names if not counts.get(name)))
