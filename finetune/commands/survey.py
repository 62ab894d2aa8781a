"""What a folder or table of images holds, by the names in it: what `init` and `auto` begin with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.config.data import DataConfig
from finetune.data.data_layout import ANYHOW, FolderOptions, Layout
from finetune.data.indexing.check_part import check_at_least_two, check_not_empty, too_few_images
from finetune.data.indexing.class_folders import DEFAULT_FRACTION, check_parts, data_folder, find_parts
from finetune.data.indexing.class_names import check_class_names
from finetune.data.indexing.folder_layout import folder_layout
from finetune.data.indexing.label_pattern import propose_pattern
from finetune.data.indexing.open_table import OpenTable, check_some_exist, folder_of_images, open_table
from finetune.data.indexing.split_names import refuse_classes_named_like_splits
from finetune.data.indexing.table_layout import table_layout
from finetune.data.table import (
    USUAL_COLUMNS,
    Columns,
    ImageRow,
    Table,
    guess_columns,
    guess_group,
    guess_separator,
    joint_labels,
    read_rows,
)
from finetune.data.table.guess import find_label
from finetune.errors import DataError
from finetune.experiment.data_options import folder_options, table_columns
from finetune.text import counted, printable


@dataclass(frozen=True)
class Survey:
    """What a folder or table of images holds, by the names in it."""

    counts: dict[str, int]
    """number of training images by class (and of validation images, if they are still to be split off)"""
    val: float | str
    """fraction to validate on; or the folder that holds it, or `auto` for a table that says which rows"""
    total: int
    """number of images counted"""
    layout: Layout
    """what it was taken for"""
    unused: tuple[str, ...] = ()
    """columns of a table that hold something else"""
    pattern: str | None = None
    """what finds the class in the name of a file, where no folder says it"""
    columns: Columns = USUAL_COLUMNS
    """of a table: those that were found by what they hold, and how several classes are written"""
    group: str | None = None
    """the column of a table that says what images have in common, such as a patient"""
    given: DataConfig | None = None
    """what was said of how it is to be read"""
    image_folder: str | None = None
    """the folder above a table, or beside it, that holds its images, where its own does not"""
    warnings: tuple[str, ...] = ()
    """of a folder: what a training will say about it"""

    def __str__(self) -> str:
        kind = "training image" if isinstance(self.val, str) else "image"
        return f"{counted(self.total, kind)} of {counted(len(self.counts), 'class', 'classes')}"

    @property
    def separator(self) -> str | None:
        """What stands between the classes of an image in a table, where it may have several."""
        return self.columns.label_separator

    @property
    def n_train(self) -> int:
        """The number of images to train on."""
        return self.total if isinstance(self.val, str) else round(self.total * (1 - self.val))


def survey_data(data: Path, given: DataConfig | None = None) -> Survey:
    """Find the classes of a folder or table, the number of images of each, and what to validate on.

    Args:
        data: the folder or table.
        given: what is known of how it is to be read.

    Raises:
        DataError: it does not look like a data set of at least two classes, or can be read in two ways.
    """
    given = given or DataConfig(path=".")
    columns = table_columns(given)
    folders = folder_options(given)
    opened = open_table(data, columns, given.image_folder, folders)
    if opened is None:
        return _with_few(replace(survey_folder(data, folders), given=given))
    survey = survey_table(opened, columns)
    if given.image_folder is None and survey.image_folder is not None:
        given = given.model_copy(update={"image_folder": survey.image_folder})
        opened = open_table(data, columns, survey.image_folder, folders) or opened
        warnings = (f"the images are in {survey.image_folder}: data.image_folder",)
        survey = replace(survey_table(opened, columns), warnings=warnings)
    return _with_few(replace(survey, given=given, layout=opened.describe(survey.layout) or survey.layout))


def _with_few(survey: Survey) -> Survey:
    """Add what a training will say of classes with too few images."""
    too_few = None if isinstance(survey.val, str) else too_few_images(survey.counts)
    return survey if too_few is None else replace(survey, warnings=(*survey.warnings, too_few))


def survey_folder(folder: Path, options: FolderOptions) -> Survey:
    """Find the classes of a folder, the number of images of each, and what to validate on.

    The folder is read as `finetune train` reads it with these options.

    Raises:
        DataError: it does not look like a data set of at least two classes.
    """
    root = data_folder(folder, options)
    found = find_parts(root, "auto", options)
    if options == ANYHOW and not found.parts[0].counts:
        proposal = propose_pattern(found.parts[0].found.images)
        if proposal is not None and not proposal.doubt:
            options = FolderOptions(label_pattern=proposal.pattern)
            found = find_parts(root, "auto", options)
    for part in found.parts:
        check_not_empty(part, found.parts[0])
    train, *others = found.parts
    check_at_least_two(train)
    refuse_classes_named_like_splits(train.counts, printable(str(folder)))
    check_class_names(train.counts, root, "allow")
    val = next((part.folder.split("/")[0] for part in others if part.split == "val"), DEFAULT_FRACTION)
    if isinstance(val, str) and isinstance(options.layout, Mapping):
        val = "auto"  # data.layout says it
    try:
        warnings = check_parts(found, "stop")
    except DataError as error:  # `train` says it again, and more of it can be seen in a config
        warnings = (str(error),)
    return Survey(
        dict(train.counts),
        val,
        sum(train.counts.values()),
        folder_layout(found, options),
        pattern=options.label_pattern,
        warnings=warnings,
    )


def survey_table(opened: OpenTable, columns: Columns) -> Survey:
    """Count the images of each class in a table, and find what to validate on.

    Args:
        opened: the table.
        columns: what is known of its columns.

    Raises:
        DataError: its rows are no data set of at least two classes.
    """
    table, files = opened.table, opened.files
    columns = _with_separator(table, guess_columns(table, files, columns, ("image", "label")).columns)
    found = read_rows(table, files, columns)
    rows, columns, unused = found.rows, found.columns, found.unused
    train = [row for row in rows if row.split in (None, "train")]
    counts = Counter(name for row in train for name in row.labels or ())
    if len(counts) < 2:
        named = " and ".join(map(repr, counts)) or "none"
        raise DataError(f"{table}: need at least 2 classes; the rows to train on have {named}.")
    held_out = any(row.split == "val" for row in rows)
    group = guess_group(table, unused)
    return Survey(
        dict(sorted(counts.items())),
        "auto" if held_out else DEFAULT_FRACTION,
        len(train),
        table_layout(table, found),
        unused=tuple(name for name in unused if name != group),
        columns=columns,
        group=group,
        image_folder=_folder_of_images(opened, rows),
        warnings=_images_elsewhere(opened, rows),
    )


def _folder_of_images(opened: OpenTable, rows: Sequence[ImageRow]) -> str | None:
    """Return where the images of a table are, if that is above its folder or beside it."""
    folder = folder_of_images(opened.table, opened.files, rows)
    return None if folder is None else str(folder)


def _images_elsewhere(opened: OpenTable, rows: Sequence[ImageRow]) -> tuple[str, ...]:
    """Return a warning if none of the images is there: they may be copied there before a training."""
    try:
        check_some_exist(opened.table, opened.files, rows)
    except DataError as error:
        return (str(error),)
    return ()


def _with_separator(table: Table, columns: Columns) -> Columns:
    """Return the columns with what seems to stand between names in the cells of the label, if anything."""
    label = find_label(table, columns)
    if not isinstance(label, str) or columns.label_separator is not None or columns.whole_cells:
        return columns
    cells = table.column(table.header.index(label))
    guess = guess_separator(cells) or joint_labels(cells)
    return columns if guess is None else replace(columns, label_separator=guess[0])
