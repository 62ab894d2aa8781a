"""Turn a data set into an index: classes from folder names or labels, splits as they are or from a hash."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from finetune.choices import AUTO_ENCODING, CaseVariants
from finetune.data.builtin import digits, turned_digits
from finetune.data.data_layout import ANYHOW, BUILT_IN, FolderOptions
from finetune.data.index import ImageIndex, Sample
from finetune.data.indexing.class_folders import (
    FoundParts,
    check_parts,
    data_folder,
    find_parts,
)
from finetune.data.indexing.corrections import correct, read_decisions
from finetune.data.indexing.exclude import exclude, read_exclusions
from finetune.data.indexing.fit_metadata import learn_metadata
from finetune.data.indexing.folder_layout import folder_layout
from finetune.data.indexing.from_table import index_table
from finetune.data.indexing.hold_out import hold_out, keep_per_class
from finetune.data.indexing.open_table import OpenTable, open_table
from finetune.data.indexing.part import Part
from finetune.data.indexing.split_names import refuse_classes_named_like_splits
from finetune.data.split import Fold, Validation
from finetune.data.table import ROLES, USUAL_COLUMNS, Columns, ImageFiles, Table, is_table
from finetune.errors import ConfigError, DataError
from finetune.text import in_byte_order, printable

_BUILTIN = "builtin:"
_BUILTIN_TABLE = f"{_BUILTIN}{turned_digits.FOLDER}"


def list_images(
    path: str | Path,
    *,
    val: Validation = "auto",
    case_variants: CaseVariants = "stop",
    columns: Columns = USUAL_COLUMNS,
    image_folder: str | None = None,
    folders: FolderOptions = ANYHOW,
) -> ImageIndex:
    """List the images of a data set with their classes, in the splits that it has itself.

    Args:
        path: a folder of class folders; one with `train/`, and perhaps `val/` and `test/`, that hold class
            folders; a table of images and labels; `builtin:digits`; or `builtin:turned-digits`, a table.
        val: as for `split_images`.
        case_variants: whether class names may differ in case only.
        columns: names of a table's columns, where they were given.
        image_folder: folder that the paths in a table are relative to; `None` for the table's own.
        folders: how a folder is to be read, where that was said.

    Raises:
        DataError: no images, fewer than two classes, or classes and splits that do not fit each other.
        ConfigError: a built-in data set or a column that does not exist, or a folder named in one.
    """
    table = _any_table(path, image_folder, columns, folders)
    if table is not None:
        index = index_table(table.table, table.files, columns, case_variants=case_variants)
        _check_table_val(index, str(path), val)
        index = _warn_of_folder_keys(replace(index, layout=table.describe(index.layout)), folders)
    else:
        index = _index_without_table(path, val, case_variants, folders)
        index = _warn_of_table_keys(index, columns, image_folder)
    refuse_classes_named_like_splits(index.class_names, printable(str(path)))
    return index


def split_images(
    index: ImageIndex,
    path: str | Path,
    *,
    val: Validation,
    seed: int,
    images_per_class: int | None = None,
    corrections: str | None = None,
    excluded: str | None = None,
) -> ImageIndex:
    """Return the index with images to validate on, with its labels corrected and its metadata understood.

    Labels are corrected and images left out after the split, so that no other image changes its side.

    Args:
        index: what `list_images` gave.
        path: the data set, for messages.
        val: the fraction of each class to validate on (0–1); a fold; the name of the folder to validate on;
            the path of a table that says what each image is for; or `auto`: the folder of validation images
            beside `train`, or the val rows of the table, if there are any, else 0.2.
        seed: decides a split by fraction or folds, and which images `images_per_class` keeps.
        images_per_class: how many training images to keep of each class; `None` for all.
        corrections: a table of what is wrong with labels; `None` for no such table.
        excluded: a table of images to leave out; `None` for no such table.

    Raises:
        DataError: classes, splits or corrections that do not fit each other.
        ConfigError: what these data cannot have.
    """
    if images_per_class is not None:
        _check_countable(index, path)
    decisions = None if corrections is None else read_decisions(corrections, index)
    exclusions = None if excluded is None else read_exclusions(excluded, index)
    index = hold_out(index, val, seed)
    index = index if decisions is None else correct(index, decisions)
    index = index if exclusions is None else exclude(index, exclusions)
    if images_per_class is not None:
        index = keep_per_class(index, images_per_class, seed)
    return learn_metadata(index)


def _check_countable(index: ImageIndex, path: str | Path) -> None:
    index.task.require_one_class(
        f"data.images_per_class: the images of {path} may have several classes each, and cannot be "
        "counted out by class; leave it out."
    )


def _any_table(
    path: str | Path, image_folder: str | None, columns: Columns, folders: FolderOptions
) -> OpenTable | None:
    if str(path) == _BUILTIN_TABLE:
        return OpenTable(_builtin_table(), ImageFiles(None))
    return None if str(path).startswith(_BUILTIN) else open_table(path, columns, image_folder, folders)


def _index_without_table(
    path: str | Path, val: Validation, case_variants: CaseVariants, folders: FolderOptions
) -> ImageIndex:
    if str(path).startswith(_BUILTIN):
        return _warn_of_folder_keys(_index_builtin(str(path), val), folders)
    return _join(find_parts(data_folder(path, folders), val, folders), case_variants, folders)


def _builtin_table() -> Table:
    rows = turned_digits.rows()
    return Table(
        Path(_BUILTIN_TABLE), turned_digits.HEADER, tuple(rows), tuple(range(1, len(rows) + 1)), "row", None
    )


def _index_builtin(path: str, val: Validation) -> ImageIndex:
    if path != f"{_BUILTIN}digits":
        raise ConfigError(
            f"data.path: there is no {path!r}; built in are builtin:digits and {_BUILTIN_TABLE}."
        )
    if isinstance(val, str) and val != "auto" and not is_table(val):
        raise ConfigError(f"data.val: {path} has no folder {val!r}; write a fraction such as 0.2, or auto.")
    _, targets = digits.load_digits()
    names = digits.sample_names()
    samples = tuple(
        Sample(name, (int(target),), "train") for name, target in zip(names, targets, strict=True)
    )
    return ImageIndex(None, digits.CLASS_NAMES, samples, layout=BUILT_IN)


def _check_table_val(index: ImageIndex, path: str, val: Validation) -> None:
    """Refuse a `val` that contradicts a table, or that only a folder can have."""
    if isinstance(val, str) and val != "auto" and not is_table(val):
        raise ConfigError(
            f"data.val: {val!r} is no fraction, and {path} no folder; the table's split column says what to "
            "validate on (data.columns.split names it), or write a fraction such as 0.2."
        )
    if isinstance(val, float | Fold) and index.count("val"):
        raise DataError(
            f"data.val is {val}, but the split column of {printable(path)} has val rows; drop data.val to "
            "validate on them, or take the column away to have a split made."
        )


def _warn_of_table_keys(index: ImageIndex, columns: Columns, image_folder: str | None) -> ImageIndex:
    keys = [f"data.columns.{role}" for role in ROLES if getattr(columns, role) is not None]
    keys += ["data.columns.metadata"] if columns.metadata else []
    keys += ["data.label_separator"] if columns.label_separator is not None else []
    keys += ["data.uncertain"] if columns.uncertain != "stop" else []
    keys += ["data.encoding"] if columns.encoding != AUTO_ENCODING else []
    keys += ["data.image_folder"] if image_folder is not None else []
    return _warn_of_keys(index, keys, "no table")


def _warn_of_folder_keys(index: ImageIndex, folders: FolderOptions) -> ImageIndex:
    keys = ["data.layout"] if folders.layout != "auto" else []
    keys += ["data.label_pattern"] if folders.label_pattern is not None else []
    return _warn_of_keys(index, keys, "no folder")


def _warn_of_keys(index: ImageIndex, keys: Sequence[str], what: str) -> ImageIndex:
    if not keys:
        return index
    line = f"{' and '.join(keys)} without effect: data.path is {what}"
    return replace(index, warnings=(*index.warnings, line))


def _join(found: FoundParts, case_variants: CaseVariants, folders: FolderOptions) -> ImageIndex:
    """Check the classes of all parts against each other and join them into one index."""
    lines, parts, train = check_parts(found, case_variants), found.parts, found.parts[0]
    class_names = tuple(train.counts)
    ignored = sum((part.found.ignored for part in parts), Counter[str]())
    samples, layout = folder_samples(parts, class_names), folder_layout(found, folders)
    index = ImageIndex(train.root, class_names, samples, lines, dict(ignored), layout=layout)
    return replace(index, folders=folders)


def folder_samples(parts: Sequence[Part], class_names: Sequence[str]) -> tuple[Sample, ...]:
    """Return the images in the folders of some classes as samples, in the order of their names' bytes."""
    labels_of = {name: (target,) for target, name in enumerate(class_names)}  # one object for all images
    samples = {
        name: Sample(name, labels_of[label], part.split, part.groups.get(name))
        for part in parts
        for name, label in part.labels.items()
        if label in labels_of
    }
    return tuple([samples[name] for name in in_byte_order(samples)])
