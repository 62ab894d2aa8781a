"""Turn a table of labelled images into an index: classes and splits from its columns."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from finetune.choices import CaseVariants, Split
from finetune.data.index import ImageIndex, Sample
from finetune.data.indexing.class_names import check_class_names
from finetune.data.indexing.open_table import check_some_exist
from finetune.data.indexing.table_layout import table_layout
from finetune.data.table import (
    Columns,
    ImageFiles,
    ImageRow,
    Table,
    guess_separator,
    joint_labels,
    read_rows,
)
from finetune.data.table.columns import as_yaml
from finetune.errors import DataError
from finetune.task import LABEL_JOINT, Task, task_of
from finetune.text import quoted, shortened, with_counts


def index_table(
    table: Table, files: ImageFiles, columns: Columns, *, case_variants: CaseVariants
) -> ImageIndex:
    """Index a table for training; images of a table without a split column are all of the split `train`.

    `files` are the images that it may name, of no folder for a built-in data set.

    Raises:
        ConfigError: a column that was named is not there.
        DataError: rows, classes or splits that do not fit each other, or images that are somewhere else.
    """
    found = read_rows(table, files, columns)
    rows, columns, unused = found.rows, found.columns, found.unused
    check_some_exist(table, files, rows)
    class_names = _class_names(table, rows, columns, case_variants)
    warnings = [_unused_line(table, unused, grouped=rows[0].group is not None)] if unused else []
    warnings += _check_splits(table, rows)
    if columns.multilabel:
        _check_joint(table, class_names)
        warnings += _always_there(table, rows)
    else:
        warnings += [] if columns.whole_cells else _made_of_others(table, class_names)
    task = task_of(columns.multilabel)
    samples = samples_of(rows, class_names, task, keep_split=True)
    layout = table_layout(table, found)
    lines = tuple(warnings)
    return ImageIndex(files.root, class_names, samples, lines, columns=columns, task=task, layout=layout)


def samples_of(
    rows: Sequence[ImageRow], class_names: Sequence[str], task: Task, *, keep_split: bool
) -> tuple[Sample, ...]:
    """Return the rows of known classes as samples in the order of their names' bytes.

    Args:
        rows: the rows of a table with labels.
        class_names: the classes; others are left out.
        task: a row whose labels it does not accept is left out.
        keep_split: whether a sample is of the split that its row says (`train` if it says nothing); else all
            are of the split `test`.
    """
    targets = {name: target for target, name in enumerate(class_names)}
    samples = []
    shared: dict[tuple[int, ...], tuple[int, ...]] = {}  # one object for all images of the same classes
    for row in rows:
        labels = tuple(sorted(targets[name] for name in row.labels or () if name in targets))
        labels = shared.setdefault(labels, labels)
        if task.accepts(labels):
            split: Split = (row.split or "train") if keep_split else "test"
            samples.append(Sample(row.name, labels, split, row.group, row.place, row.metadata))
    return tuple(sorted(samples, key=lambda sample: os.fsencode(sample.name)))


def _unused_line(table: Table, unused: Sequence[str], *, grouped: bool) -> str:
    hint = (
        "" if grouped else ", data.columns.group one whose images must not stand on both sides of the split"
    )
    return (
        f"columns of {table} that are not used: {quoted(unused)}; data.columns.metadata names those that the "
        f"model is to see{hint}"
    )


def _class_names(
    table: Table, rows: Sequence[ImageRow], columns: Columns, case_variants: CaseVariants
) -> tuple[str, ...]:
    """Return the classes in the order of their bytes, or of their columns; all need images to train on."""
    counts = _counts(rows, "train")
    names = {name for row in rows for name in row.labels or ()}
    check_class_names(names, table.path, case_variants, kind="class", remedy="correct the labels")
    if isinstance(columns.label, tuple):
        without = [name for name in columns.label if name not in counts]
        if without:
            raise DataError(
                f"{table}: no row to train on has {quoted(without)}; take the columns of classes without "
                "images out of data.columns.label."
            )
        return columns.label
    if len(counts) < 2:
        raise DataError(
            f"need at least 2 classes; the rows of {table} to train on have {len(counts)}: "
            f"{with_counts(counts) or 'none'}."
        )
    return tuple(counts)


def _check_joint(table: Table, names: Iterable[str]) -> None:
    joined = sorted(name for name in names if LABEL_JOINT in name)
    if joined:
        raise DataError(
            f"{table}: class {joined[0]!r} holds {LABEL_JOINT!r}, which stands between the classes of an "
            "image in the split.csv of a run; rename the class, or name what separates the names in "
            "data.label_separator."
        )


def _always_there(table: Table, rows: Sequence[ImageRow]) -> list[str]:
    """Tell of classes that every row to train on has: nothing says what it is to be without them."""
    images = sum((row.split or "train") == "train" for row in rows)
    always = {name: number for name, number in _counts(rows, "train").items() if number == images}
    return [f"classes of {table} that all images to train on have: {with_counts(always)}"] if always else []


def _made_of_others(table: Table, class_names: Sequence[str]) -> list[str]:
    """Tell of classes that look like several names in one cell.

    Raises:
        DataError: nearly all look so.
    """
    if (joint := joint_labels(class_names)) is not None:
        separator, example, number = joint
        raise DataError(
            f"{table}: labels such as {shortened(example)!r} are put together from {number:,} names, in "
            f"{len(class_names):,} ways. Which are the classes?\n"
            f"data.label_separator: {as_yaml(separator)}      the names; an image may have several\n"
            "data.label_separator: null      the labels as they are"
        )
    guess = guess_separator(class_names)
    if guess is None:
        return []
    separator, name = guess
    return [
        f"class {name!r} of {table} is made of other classes; if an image may have several, set "
        f"data.label_separator: {separator!r}"
    ]


def _check_splits(table: Table, rows: Sequence[ImageRow]) -> list[str]:
    """Compare the classes of validation and test rows with those of training rows; give what to warn of."""
    train, warnings = _counts(rows, "train"), []
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        counts = _counts(rows, split)
        if not counts and any(row.split == split for row in rows):
            raise DataError(f"no {split} row of {table} has a class; there would be nothing to score.")
        extra = {name: number for name, number in counts.items() if name not in train}
        if extra:
            raise DataError(
                f"{split} rows of {table} have classes that its train rows have not: {with_counts(extra)}."
            )
        absent = {name: number for name, number in train.items() if name not in counts}
        if counts and absent:
            warnings.append(f"classes of {table} without a {split} row: {with_counts(absent)}")
    return warnings


def _counts(rows: Sequence[ImageRow], split: Split) -> dict[str, int]:
    """Count the images of each class in the rows of a split, in the order of the classes' bytes."""
    counts = Counter(name for row in rows if (row.split or "train") == split for name in row.labels or ())
    return {name: counts[name] for name in sorted(counts, key=os.fsencode)}
