"""The story of `finetune init`: look at a folder or table of images and write a config to begin with.

Only names and labels are looked at, no image is opened and torch is not loaded, so that it answers at once.
"""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.commands.proposed_architecture import architecture_lines
from finetune.config.yaml_writer import write_value
from finetune.data.data_layout import ANYHOW, FolderOptions, Layout
from finetune.data.indexing.class_folders import (
    DEFAULT_FRACTION,
    check_at_least_two,
    check_not_empty,
    existing_folder,
    find_parts,
)
from finetune.data.indexing.folder_layout import folder_layout
from finetune.data.indexing.label_pattern import propose_pattern
from finetune.data.indexing.open_table import OpenTable, open_table
from finetune.data.indexing.split_names import refuse_classes_named_like_splits
from finetune.data.indexing.table_layout import table_layout
from finetune.data.table import (
    USUAL_COLUMNS,
    Columns,
    Table,
    guess_columns,
    guess_group,
    guess_separator,
    is_table,
    read_rows,
)
from finetune.data.table.guess import find_label
from finetune.errors import ConfigError, DataError
from finetune.machine.files import reported_disk_errors, try_writing
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


def write_config(data: Path, target: Path) -> str:
    """Write a commented config for a folder or table of images, and give a sentence that says so.

    Raises:
        DataError: it does not look like a data set of at least two classes.
        ConfigError: `target` exists, or its folder does not.
        ResourceError: it cannot be written.
    """
    check_target(target)
    survey = survey_data(data)
    text = config_text(data, target, survey)
    with reported_disk_errors(target), target.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    following = f"next: finetune train {shlex.quote(str(target))}"
    return f"layout  {survey.layout.line()}\nwrote {target} for {survey}; {following}"


def check_target(target: Path) -> None:
    """Refuse a config that cannot be written, before the images are looked at.

    Raises:
        ConfigError: it exists, or its folder does not.
        ResourceError: it cannot be written.
    """
    if target.exists():
        raise ConfigError(f"{target}: exists already and is left alone; name another file")
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: there is no folder {target.parent}")
    try_writing(target)


def default_config(data: Path) -> str:
    """Return the text of the config that `write_config` writes for a folder or table of images.

    Raises:
        DataError: it does not look like a data set of at least two classes.
    """
    return config_text(data, Path(config_name(data)), survey_data(data))


def survey_data(data: Path, columns: Columns = USUAL_COLUMNS) -> Survey:
    """Find the classes of a folder or table, the number of images of each, and what to validate on.

    Raises:
        DataError: it does not look like a data set of at least two classes.
    """
    opened = open_table(data, columns)
    return survey_folder(data) if opened is None else survey_table(opened, columns)


def config_name(data: Path) -> str:
    """Return the name of the config for a folder or table: `photos.yaml` for `photos` and `photos.csv`."""
    data = data.resolve()
    return f"{data.stem if is_table(data) else data.name}.yaml"


def survey_folder(folder: Path) -> Survey:
    """Find the classes of a folder, the number of images of each, and what to validate on.

    The folder is read as `finetune train` reads it.

    Raises:
        DataError: it does not look like a data set of at least two classes.
    """
    root, options = existing_folder(folder), ANYHOW
    found = find_parts(root, "auto")
    if not found.parts[0].counts:
        options = FolderOptions(label_pattern=propose_pattern(found.parts[0].found.images))
        found = find_parts(root, "auto", options)
    for part in found.parts:
        check_not_empty(part)
    train, *others = found.parts
    check_at_least_two(train)
    refuse_classes_named_like_splits(train.counts, printable(str(folder)))
    val = next((part.folder.split("/")[0] for part in others if part.split == "val"), DEFAULT_FRACTION)
    layout = folder_layout(found, options)
    pattern = options.label_pattern
    return Survey(dict(train.counts), val, sum(train.counts.values()), layout, pattern=pattern)


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
    )


def _with_separator(table: Table, columns: Columns) -> Columns:
    """Return the columns with what seems to stand between names in the cells of the label, if anything."""
    label = find_label(table, columns)
    if not isinstance(label, str) or columns.label_separator is not None:
        return columns
    guess = guess_separator(table.column(table.header.index(label)))
    return columns if guess is None else replace(columns, label_separator=guess[0])


def config_text(data: Path, target: Path, survey: Survey) -> str:
    """Write the config: every common key, with a line on what it does.

    Raises:
        DataError: the name of the data cannot be written in UTF-8.
    """
    try:
        str(data).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{str(data)!r}: the name is not UTF-8, so no config can hold it; rename it"
        ) from None
    frozen, unfrozen = _epochs(survey.n_train)
    keys = label_line(survey) + column_lines(survey)
    return f"""\
# {survey}. Written by finetune init, to be changed at will.
# Read as {survey.layout.line()}.
# Run it with:  finetune train {write_value(str(target))}

seed: 42                      # decides everything random; another seed gives another run
data:
  path: {write_value(str(data))}
{f"  val: {write_value(survey.val)}":<29} # validation: a fraction of each class, or what holds it
{keys}{f"  batch_size: {batch_size_for(survey.n_train)}":<29} # images per step; less if memory runs out
  augment: standard           # none, light (digits, text), standard or strong (few images, many epochs)
  image_size: null            # pixels; null is what the pretrained weights were made for
model:
{architecture_lines()}  weights: default            # pretrained weights; none starts from random ones
  head: {{hidden: [512]}}       # widths of the head's hidden layers; [] is a linear probe
  layer_groups: 3             # parts with learning rates of their own
optimizer: {{name: adam, weight_decay: 0.01}}
stages:                       # first the new head alone, then everything, early layers slowest
  - {{name: frozen, train: head, epochs: {frozen}, lr: auto}}    # found when training begins
  - {{name: unfrozen, train: all, epochs: {unfrozen}, lr: "slice(1e-5, 1e-3)"}}
"""


def label_line(survey: Survey) -> str:
    """Write what finds the classes of an image in a cell or a name; empty where that is plain."""
    if survey.pattern is not None:
        key = f"  label_pattern: {write_value(survey.pattern)}"
        return f"{key:<29} # what stands in ( ) in the name of a file is its class\n"
    if survey.separator is None:
        return ""
    key = f"  label_separator: {write_value(survey.separator)}"
    return f"{key:<29} # cells with several classes; without it each would be a class of its own\n"


def column_lines(survey: Survey) -> str:
    """Write the columns of a table that have no usual names, and as comments what others are good for."""
    found = found_columns(survey.columns)
    lines: list[str] = []
    columns: dict[str, str | list[str]] = {}
    if survey.group is not None:
        lines.append(
            "  # group: images that have it in common stay on one side of the split (no data leakage)"
        )
        columns["group"] = survey.group
    if names := [name for name in survey.unused if name]:
        lines.append("  # metadata that the model may use, if it is known of new images too")
        columns["metadata"] = names
    if columns:
        lines.append(f"  # columns: {{{_keys(found | columns)}}}")
    return "".join(f"{line}\n" for line in [*([f"  columns: {{{_keys(found)}}}"] if found else []), *lines])


def found_columns(columns: Columns) -> dict[str, str | list[str]]:
    """Return the columns of a table that were found by what they hold, by their keys in a config.

    Not those of 0 and 1 with one 1 in each row: named, they would be those of several classes an image.
    """
    label = list(columns.label) if isinstance(columns.label, tuple) else columns.label
    values = {"image": columns.image, "label": None if columns.one_class else label}
    return {role: value for role, value in values.items() if role in columns.found and value}


def _keys(columns: Mapping[str, str | list[str]]) -> str:
    return ", ".join(f"{key}: {write_value(value)}" for key, value in columns.items())


def batch_size_for(n_train: int) -> int:
    """Choose at least eight steps per epoch; fewer make a schedule of a few big jumps."""
    return next((size for size in (64, 32, 16, 8, 4) if n_train >= 8 * size), 2)


def _epochs(n_train: int) -> tuple[int, int]:
    """Choose the epochs of the frozen and of the unfrozen stage: fewer images are seen more often."""
    if n_train < 1_000:
        return 3, 10
    return (1, 5) if n_train < 20_000 else (1, 3)
