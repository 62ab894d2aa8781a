"""Index images that a trained model has not seen, with the classes that it knows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import isdir
from pathlib import Path

from finetune.choices import Split
from finetune.data.data_layout import ANYHOW, FolderOptions
from finetune.data.index import ImageIndex
from finetune.data.indexing.build import folder_samples
from finetune.data.indexing.class_folders import FoundParts, data_folder, part_warnings
from finetune.data.indexing.find_images import list_folders
from finetune.data.indexing.fit_metadata import apply_metadata
from finetune.data.indexing.folder_layout import folder_layout
from finetune.data.indexing.from_table import samples_of
from finetune.data.indexing.open_table import OpenTable, check_some_exist, open_table
from finetune.data.indexing.part import find_split_parts
from finetune.data.indexing.part_from_list import lies_in_no_class, part_from_list
from finetune.data.indexing.split_folders import find_evaluated_folder
from finetune.data.indexing.table_layout import table_layout
from finetune.data.metadata import Metadata
from finetune.data.table import USUAL_COLUMNS, Columns, ImageRow, TableRows, read_rows
from finetune.data.table.encoding import fitting_encoding
from finetune.errors import DataError
from finetune.task import task_of
from finetune.text import expanded, printable, quoted


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


_ONE_CLASS = (
    "{} is no table: the model gives an image several classes, and folders say only one.\n"
    "Name a table with the columns of the one that it was trained on."
)


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
    encoding = fitting_encoding(expanded(path), columns.encoding)
    known = _known_folders(path, class_names)
    opened = None if known else open_table(path, replace(columns, encoding=encoding))
    present = _present(columns, () if opened is None else opened.table.header)
    if opened is not None:
        matched = _match_table(opened, class_names, present, split)
        found = _warn_of_others(matched, columns, present, opened)
    elif columns.multilabel:
        raise DataError(_ONE_CLASS.format(printable(str(path))))
    else:
        found = _match_folder(path, class_names, split, folders)
    if metadata is None:
        return found
    source = printable(str(path))
    return replace(found, index=apply_metadata(found.index, list(present.metadata), metadata, source))


def _known_folders(path: str | Path, class_names: Sequence[str]) -> bool:
    """Tell whether a path is a folder that holds the folder of a class that the model knows."""
    root = expanded(path)
    return isdir(root) and bool(set(list_folders(root)) & set(class_names))


def _present(columns: Columns, header: Sequence[str]) -> Columns:
    """Return the columns with those of metadata, and those found by what they hold, that there are."""
    metadata = {name: kind for name, kind in columns.metadata.items() if name in header}
    return replace(columns.there(header), metadata=metadata)


def _warn_of_others(
    found: MatchedIndex, columns: Columns, present: Columns, opened: OpenTable
) -> MatchedIndex:
    """Warn of columns that are called otherwise than in the data of the model."""
    before, now = (columns.image, columns.label), (present.image, present.label)
    others = [name for name, same in zip(before, now, strict=True) if isinstance(name, str) and same is None]
    if not others or found.index.layout is None:
        return found
    lacking = "column" if len(others) == 1 else "columns"
    line = f"{opened.table} has no {lacking} {quoted(others)}, as the data of the model; "
    line += found.index.layout.line()
    return replace(found, index=replace(found.index, warnings=(*found.index.warnings, line)))


def _match_folder(
    path: str | Path, class_names: Sequence[str], split: Split, options: FolderOptions
) -> MatchedIndex:
    root = data_folder(path, options)
    folder = find_evaluated_folder(root, class_names, split, options)
    if set(class_names) & set(list_folders(root / folder)):
        options = ANYHOW
    (part,) = find_split_parts(root, {"test": folder}, options)
    if part.pattern is None and lies_in_no_class(part):
        part = part_from_list(part, class_names)
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


def _match_table(
    opened: OpenTable, class_names: Sequence[str], columns: Columns, split: Split
) -> MatchedIndex:
    table, files = opened.table, opened.files
    found = read_rows(table, files, columns)
    rows: Sequence[ImageRow] = found.rows
    if found.columns.multilabel and not columns.multilabel:
        raise DataError(
            f"{table}: its rows name several classes each, or none, in {_label_columns(found)}; the model "
            "gives an image one class. Leave out what is no class."
        )
    splits = Counter(row.split for row in rows if row.split is not None)
    rows = [row for row in rows if row.split in (None, split)]
    if not rows:
        there = ", ".join(f"{number} {name}" for name, number in splits.items())
        raise DataError(f"{table} has no {split} rows; it has {there}. Choose with --split.")
    check_some_exist(table, files, rows)
    task = task_of(columns.multilabel)
    samples = samples_of(rows, class_names, task, keep_split=False)
    counts = Counter(name for row in rows for name in row.labels or ())
    if not counts.keys() & set(class_names):
        raise DataError(
            f"no image of a class that the model knows in {table}: the labels there are "
            f"{quoted(counts) or 'none'}, "
            f"the model knows {quoted(class_names)}."
        )
    layout = table_layout(table, found)
    index = ImageIndex(files.root, tuple(class_names), samples, task=task, layout=layout)
    return _matched(index, counts)


def _label_columns(found: TableRows) -> str:
    label = found.columns.label
    return quoted(label) if isinstance(label, tuple) else f"column {label or 'label'!r}"


def _matched(index: ImageIndex, counts: Mapping[str, int]) -> MatchedIndex:
    known = set(index.class_names)
    unknown = {name: number for name, number in counts.items() if number and name not in known}
    return MatchedIndex(index, unknown, tuple(name for name in index.class_names if not counts.get(name)))
