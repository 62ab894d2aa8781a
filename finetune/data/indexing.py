"""Turn a data set into an index: classes from folder names, splits from folders or from a hash."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.builtin import digits
from finetune.data.class_names import CaseVariants, check_class_names
from finetune.data.folders import list_folders
from finetune.data.index import ImageIndex, Sample
from finetune.data.layout import (
    DEFAULT_FRACTION,
    SPLIT_FOLDERS,
    Part,
    check_not_empty,
    find_part,
    find_parts,
    part_warnings,
    quoted,
    with_counts,
)
from finetune.errors import ConfigError, DataError
from finetune.layout_names import TRAIN_FOLDER
from finetune.split import limit_per_class, stratified_split
from finetune.text import printable

_BUILTIN = "builtin:"


@dataclass(frozen=True)
class FolderIndex:
    """A folder of images seen with the classes of a trained model."""

    index: ImageIndex
    unknown: Mapping[str, int]
    """class folders that the model does not know, with their number of images; these are not in the index"""
    missing: tuple[str, ...]
    """classes of the model without an image in the folder"""


def index_images(
    path: str | Path,
    *,
    val: float | str = "auto",
    seed: int,
    images_per_class: int | None = None,
    case_variants: CaseVariants = "stop",
) -> ImageIndex:
    """Index a data set for training.

    Args:
        path: a folder of class folders; one with `train/`, and perhaps `val/` and `test/`, that hold class
            folders; or `builtin:digits`.
        val: the fraction of each class to validate on (0–1); the name of the folder to validate on; or
            `auto`: the folder `val`, `valid` or `validation` beside `train` if there is one, else 0.2.
        seed: decides a split by fraction, and which images `images_per_class` keeps.
        images_per_class: how many training images to keep of each class; `None` for all.
        case_variants: whether class names may differ in case only.

    Raises:
        DataError: no images, fewer than two classes, or classes and splits that do not fit each other.
        ConfigError: a built-in data set that does not exist, or a folder asked of one.
    """
    if str(path).startswith(_BUILTIN):
        index = _index_builtin(str(path), val)
    else:
        root = _existing_folder(path)
        parts, warnings = find_parts(root, val)
        index = _join(parts, warnings, case_variants)
    if not index.count("val"):
        index = _hold_out(index, val if isinstance(val, float) else DEFAULT_FRACTION, seed)
    return index if images_per_class is None else _keep_per_class(index, images_per_class, seed)


def index_folder(path: str | Path, class_names: Sequence[str]) -> FolderIndex:
    """Index a folder of class folders for evaluation; all its samples are of the split `test`.

    Raises:
        DataError: no image of a class that the model knows.
    """
    root = _existing_folder(path)
    splits = [name for name in list_folders(root) if name in SPLIT_FOLDERS and name not in class_names]
    if TRAIN_FOLDER in splits:
        choices = " or ".join(printable(str(root / name)) for name in splits)
        raise DataError(f"{printable(str(root))} holds {', '.join(splits)}; name one of them: {choices}.")
    part = find_part(root, "", "test")
    samples = _samples([part], class_names)
    if not samples:
        raise DataError(
            f"no image of a class that the model knows in {part}: the folders there are "
            f"{quoted(part.counts) or 'none'}, the model knows {quoted(class_names)}."
        )
    index = ImageIndex(
        root, tuple(class_names), samples, tuple(part_warnings(part)), dict(part.found.ignored)
    )
    unknown = {name: number for name, number in part.counts.items() if number and name not in class_names}
    missing = tuple(name for name in class_names if not part.counts.get(name))
    return FolderIndex(index, unknown, missing)


def _index_builtin(path: str, val: float | str) -> ImageIndex:
    if path != f"{_BUILTIN}digits":
        raise ConfigError(f"data.path: there is no {path!r}; the built-in data set is builtin:digits.")
    if isinstance(val, str) and val != "auto":
        raise ConfigError(f"data.val: {path} has no folder {val!r}; write a fraction such as 0.2, or auto.")
    _, targets = digits.load_digits()
    names = digits.sample_names()
    samples = tuple(Sample(name, int(target), "train") for name, target in zip(names, targets, strict=True))
    return ImageIndex(None, digits.CLASS_NAMES, samples)


def _existing_folder(path: str | Path) -> Path:
    root = Path(path).expanduser().absolute()
    shown = printable(str(root))
    if not os.path.lexists(root):
        raise DataError(f"no such directory: {shown}.")
    if not root.is_dir():
        raise DataError(f"{shown} is not a folder; expected a folder of images.")
    return root


def _join(parts: Sequence[Part], warnings: Sequence[str], case_variants: CaseVariants) -> ImageIndex:
    """Check the classes of all parts against each other and join them into one index."""
    train = parts[0]
    for part in parts:
        check_not_empty(part)
    check_class_names([name for part in parts for name in part.counts], train.root, case_variants)
    class_names = tuple(train.counts)
    if len(class_names) < 2:
        raise DataError(
            f"need at least 2 classes; {train} has {len(class_names)}: {with_counts(train.counts)}."
            + _hint(train)
        )
    lines = [*warnings]
    for part in parts[1:]:
        extra = {name: n for name, n in part.counts.items() if n and name not in train.counts}
        if extra:
            raise DataError(f"{part} has classes that {train} has not: {with_counts(extra)}.")
        absent = {name: n for name, n in train.counts.items() if not part.counts.get(name)}
        if absent:
            lines.append(f"classes of {train} without an image in {part}: {with_counts(absent)}")
    lines += [line for part in parts for line in part_warnings(part)]
    ignored = sum((part.found.ignored for part in parts), Counter[str]())
    return ImageIndex(train.root, class_names, _samples(parts, class_names), tuple(lines), dict(ignored))


def _samples(parts: Sequence[Part], class_names: Sequence[str]) -> tuple[Sample, ...]:
    targets = {name: target for target, name in enumerate(class_names)}
    samples = [
        Sample(name, targets[class_name], part.split)
        for part in parts
        for name in part.found.images
        if (class_name := part.class_of(name)) in targets and class_name is not None
    ]
    return tuple(sorted(samples, key=lambda sample: os.fsencode(sample.name)))


def _hint(train: Part) -> str:
    """Guess that the folder meant is one level further down."""
    for name in train.counts:
        below = train.root / train.folder / name
        if len(list_folders(below)) > 1:
            return f" Did you mean {printable(str(below))}?"
    return ""


def _hold_out(index: ImageIndex, fraction: float, seed: int) -> ImageIndex:
    """Move a part of each class's training samples to validation."""
    single = {name: number for name, number in index.counts("train").items() if number < 2}
    if single:
        raise DataError(
            f"{index.root}: too few images to train and validate on in {with_counts(single)}; "
            "a class needs at least 2."
        )
    train = index.of_split("train")
    names, targets = [sample.name for sample in train], [sample.target for sample in train]
    held_out = dict(zip(names, stratified_split(names, targets, fraction=fraction, seed=seed), strict=True))
    samples = tuple(
        sample._replace(split="val") if held_out.get(sample.name) else sample for sample in index.samples
    )
    return replace(index, samples=samples)


def _keep_per_class(index: ImageIndex, limit: int, seed: int) -> ImageIndex:
    train = index.of_split("train")
    names, targets = [sample.name for sample in train], [sample.target for sample in train]
    kept = dict(zip(names, limit_per_class(names, targets, limit=limit, seed=seed), strict=True))
    return replace(index, samples=tuple(sample for sample in index.samples if kept.get(sample.name, True)))
