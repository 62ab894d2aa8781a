"""Turn a table of labelled images into an index: classes and splits from its columns."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from finetune.data.class_names import CaseVariants, check_class_names
from finetune.data.index import ImageIndex, Sample, Split
from finetune.data.layout import existing_folder, quoted, with_counts
from finetune.errors import DataError
from finetune.table import Columns, ImageRow, Table, read_rows
from finetune.text import printable


def index_table(
    table: Table, root: Path | None, columns: Columns, *, case_variants: CaseVariants
) -> ImageIndex:
    """Index a table for training; images of a table without a split column are all of the split `train`.

    `root` is the folder that its paths are relative to, None for a built-in data set.

    Raises:
        ConfigError: a column that was named is not there.
        DataError: rows, classes or splits that do not fit each other, or images that are somewhere else.
    """
    rows, unused = read_rows(table, root or Path("/"), columns)
    if root is not None:
        check_some_exist(table, root, rows)
    class_names = _class_names(table, rows, case_variants)
    warnings = [_unused_line(table, unused, grouped=rows[0].group is not None)] if unused else []
    warnings += _check_splits(table, rows)
    samples = samples_of(rows, class_names, keep_split=True)
    return ImageIndex(root, class_names, samples, tuple(warnings), columns=columns)


def table_root(path: str | Path, image_folder: str | Path | None) -> Path:
    """Give the folder that the paths in a table are relative to: the one given, else the table's own."""
    if image_folder is None:
        return Path(path).expanduser().absolute().parent
    return existing_folder(image_folder)


def samples_of(
    rows: Sequence[ImageRow], class_names: Sequence[str], *, keep_split: bool
) -> tuple[Sample, ...]:
    """Give the rows of known classes as samples in the order of their names' bytes.

    Args:
        rows: the rows of a table with labels.
        class_names: the classes; a row of another one is left out.
        keep_split: whether a sample is of the split that its row says (`train` if it says nothing); else all
            are of the split `test`.
    """
    targets = {name: target for target, name in enumerate(class_names)}
    samples = []
    for row in rows:
        if row.label in targets:
            split: Split = (row.split or "train") if keep_split else "test"
            samples.append(Sample(row.name, (targets[row.label],), split, row.group, row.place, row.metadata))
    return tuple(sorted(samples, key=lambda sample: os.fsencode(sample.name)))


def check_some_exist(table: Table, root: Path, rows: Sequence[ImageRow]) -> None:
    """Tell a folder that is the wrong one from single images that are missing, which the scan lists.

    Raises:
        DataError: not one of the images is there.
    """
    if not any(os.path.lexists(root / row.name) for row in rows):
        raise DataError(
            f"none of the {len(rows)} images of {table} is in {printable(str(root))}, for instance "
            f"{printable(rows[0].name)}. Paths are relative to the table's folder, or to data.image_folder."
        )


def _unused_line(table: Table, unused: Sequence[str], *, grouped: bool) -> str:
    hint = (
        "" if grouped else ", data.columns.group one whose images must not stand on both sides of the split"
    )
    return (
        f"columns of {table} that are not used: {quoted(unused)}; data.columns.metadata names those that the "
        f"model is to see{hint}"
    )


def _class_names(table: Table, rows: Sequence[ImageRow], case_variants: CaseVariants) -> tuple[str, ...]:
    """Give the classes in the order of their bytes; all of them need images to train on."""
    counts = _counts(rows, "train")
    check_class_names(
        [str(row.label) for row in rows], table.path, case_variants, kind="class", remedy="correct the labels"
    )
    if len(counts) < 2:
        raise DataError(
            f"need at least 2 classes; the rows of {table} to train on have {len(counts)}: "
            f"{with_counts(counts) or 'none'}."
        )
    return tuple(counts)


def _check_splits(table: Table, rows: Sequence[ImageRow]) -> list[str]:
    """Compare the classes of validation and test rows with those of training rows; give what to warn of."""
    train, warnings = _counts(rows, "train"), []
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        counts = _counts(rows, split)
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
    counts = Counter(str(row.label) for row in rows if (row.split or "train") == split)
    return {name: counts[name] for name in sorted(counts, key=os.fsencode)}
