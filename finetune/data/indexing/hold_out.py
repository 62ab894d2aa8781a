"""Decide which samples validate: a part of each class, whole groups, one fold, or what a table says."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from finetune.data.index import SPLIT_HEADER, ImageIndex, Sample
from finetune.data.indexing.check_part import too_few_images
from finetune.data.indexing.class_folders import DEFAULT_FRACTION
from finetune.data.split import (
    Fold,
    Validation,
    grouped_folds,
    grouped_split,
    limit_per_class,
    stratified_folds,
    stratified_split,
)
from finetune.data.table import USUAL_COLUMNS, KnownFiles, Role, Table, is_table, read_rows, read_table
from finetune.errors import DataError
from finetune.text import counted, printable, quoted, unprotect_cell, with_counts


def hold_out(index: ImageIndex, val: Validation, seed: int) -> ImageIndex:
    """Return the index with samples to validate on; an index that has some keeps its split.

    Args:
        index: all samples; those of the split `test` stay out of it.
        val: the fraction to hold out, the fold, or the path of a table that says what each image is for.
        seed: decides which samples make up a fraction or a fold.

    Raises:
        DataError: classes or groups that cannot stand on both sides, a group that does though it must not, or
            a table that does not fit the images.
    """
    if isinstance(val, str) and is_table(val):
        index = _as_given(index, val)
    elif not index.count("val"):
        index = _held_out(index, val if isinstance(val, float | Fold) else DEFAULT_FRACTION, seed)
    _check_groups(index)
    return index


def keep_per_class(index: ImageIndex, limit: int, seed: int) -> ImageIndex:
    """Return the index with at most `limit` training samples of each class."""
    train = index.of_split("train")
    names, targets = [sample.name for sample in train], [sample.target for sample in train]
    kept = dict(zip(names, limit_per_class(names, targets, limit=limit, seed=seed), strict=True))
    return replace(index, samples=tuple(sample for sample in index.samples if kept.get(sample.name, True)))


def group_shares(index: ImageIndex) -> str | None:
    """Say how near a split by groups came to what it should be; None where no sample has a group."""
    samples = [sample for sample in index.samples if sample.split != "test" and sample.group is not None]
    if not samples:
        return None
    groups = {sample.group for sample in samples}
    val_groups = {sample.group for sample in samples if sample.split == "val"}
    train, val = index.counts("train"), index.counts("val")
    shares = {name: val[name] / (train[name] + val[name]) for name in train if train[name] + val[name]}
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    whole = index.count("val") / (index.count("train") + index.count("val"))
    return (
        f"{len(val_groups):,} of {len(groups):,} groups validate, {whole:.1%} of the images, "
        f"from {shares[least]:.1%} ({printable(least)}) to {shares[most]:.1%} ({printable(most)}) of a class"
    )


def _held_out(index: ImageIndex, how: float | Fold, seed: int) -> ImageIndex:
    """Move a part of the training samples to validation."""
    if too_few := too_few_images(index.counts("train")):
        raise DataError(f"{index.root}: {too_few}.")
    train = index.of_split("train")
    flags = _flags(train, [index.task.strata(sample.labels) for sample in train], how, seed)
    flag = iter(flags)
    samples = [s._replace(split="val") if s.split == "train" and next(flag) else s for s in index.samples]
    index = replace(index, samples=tuple(samples))
    return _check_classes(index, how)


def _flags(
    train: Sequence[Sample], strata: Sequence[tuple[int, ...]], how: float | Fold, seed: int
) -> list[bool]:
    """Tell for each training sample whether it is held out; each of its strata is to have its share."""
    if any(sample.group is not None for sample in train) or any(len(own) > 1 for own in strata):
        return _flags_of_groups(train, strata, how, seed)
    names, targets = [sample.name for sample in train], [stratum for (stratum,) in strata]
    if isinstance(how, Fold):
        folds = stratified_folds(names, targets, folds=how.of, seed=seed)
        return [fold == how.number - 1 for fold in folds]
    return stratified_split(names, targets, fraction=how, seed=seed)


def _flags_of_groups(
    train: Sequence[Sample], strata: Sequence[tuple[int, ...]], how: float | Fold, seed: int
) -> list[bool]:
    """Tell the same of samples that are dealt by groups, as those of several strata are: one by one."""
    groups: list[str] = []
    targets: list[int] = []
    for sample, own in zip(train, strata, strict=True):
        groups += [_whole(sample)] * len(own)
        targets += own
    if isinstance(how, Fold):
        flags = [f == how.number - 1 for f in grouped_folds(groups, targets, folds=how.of, seed=seed)]
    else:
        flags = grouped_split(groups, targets, fraction=how, seed=seed)
    held_out = dict(zip(groups, flags, strict=True))
    return [held_out[_whole(sample)] for sample in train]


def _whole(sample: Sample) -> str:
    return sample.name if sample.group is None else sample.group


def _check_classes(index: ImageIndex, how: float | Fold) -> ImageIndex:
    """Refuse a split that leaves nothing to learn a class from, or to validate on, and warn of gaps."""
    train, val = index.counts("train"), index.counts("val")
    lost = {name: val[name] for name, number in train.items() if not number}
    if lost:
        what = "of one group, and that is" if _each_is_one_group(index, lost) else "among those"
        raise DataError(
            f"{with_counts(lost)}: all are {what} held out in {how}; then nothing is left to learn the class "
            "from. Take fewer folds, or find images of other groups."
        )
    if not any(val.values()):
        grouped = index.samples[0].group is not None
        why = "groups can only be held out whole" if grouped else "there are too few images"
        raise DataError(
            f"nothing to validate on: {why}, and {how if isinstance(how, Fold) else f'a part of {how:g}'} "
            "would be empty or leave a class without training images."
        )
    absent = {name: train[name] for name, number in val.items() if not number}
    if not absent:
        return index
    line = f"classes without an image to validate on: {with_counts(absent)}"
    return replace(index, warnings=(*index.warnings, line))


def _each_is_one_group(index: ImageIndex, class_names: Iterable[str]) -> bool:
    """Tell whether all images to validate on of each class are of one group."""
    groups: dict[str, set[str | None]] = {name: set() for name in index.class_names}
    for sample in index.of_split("val"):
        for label in sample.labels:
            groups[index.class_names[label]].add(sample.group)
    return all(len(groups[name]) == 1 and None not in groups[name] for name in class_names)


def _check_groups(index: ImageIndex) -> None:
    """Refuse a split that has images of one group on two sides: what is validated would have been seen."""
    first: dict[str, Sample] = {}
    torn: dict[str, tuple[Sample, Sample]] = {}
    for sample in index.samples:
        if sample.group is not None:
            earlier = first.setdefault(sample.group, sample)
            if earlier.split != sample.split:
                torn.setdefault(sample.group, (earlier, sample))
    if torn:
        (group, pair), more = next(iter(torn.items())), len(torn) - 1
        sides = " and ".join(
            f"in {s.split} ({printable(s.name)}{f', {s.place}' * bool(s.place)})" for s in pair
        )
        others = f", and {counted(more, 'more group')} on two sides" if more else ""
        raise DataError(
            f"group {group!r} stands {sides}{others}. "
            "Give all images of a group the same split, or take the split away to have it made by groups."
        )


def _as_given(index: ImageIndex, path: str) -> ImageIndex:
    """Split the samples as a table says, for instance the split.csv of an earlier run."""
    files = KnownFiles(index.root, (sample.name for sample in index.samples))
    table = _as_written(read_table(path, files=files, errors="surrogateescape"))
    said: tuple[Role, ...] = ("image", "split")
    rows = read_rows(table, files, USUAL_COLUMNS, required=said, wanted=said).rows
    splits = {row.name: row.split for row in rows if row.split is not None}
    absent = splits.keys() - {sample.name for sample in index.samples}
    if absent:
        raise DataError(
            f"{len(absent):,} of the {counted(len(splits), 'image')} of {table} are not in the data, "
            f"for instance {printable(min(absent))}; it is the split of other data, or images were removed."
        )
    samples = [s._replace(split=splits[s.name]) for s in index.samples if s.name in splits]
    given = replace(index, samples=tuple(samples))
    for split in ("train", "val"):
        without = [name for name, number in given.counts(split).items() if not number]
        if len(without) == len(index.class_names) or (split == "train" and without):
            raise DataError(f"{table} has no {split} images of {quoted(without)}.")
    left_out = len(index.samples) - len(samples)
    if not left_out:
        return given
    return replace(
        given, warnings=(*index.warnings, f"left out {counted(left_out, 'image')} that {table} does not list")
    )


def _as_written(table: Table) -> Table:
    """Undo what the split.csv of a run does to names that a spreadsheet would read as formulas."""
    if table.header[: len(SPLIT_HEADER)] != SPLIT_HEADER:
        return table
    return replace(table, rows=tuple(tuple(map(unprotect_cell, row)) for row in table.rows))
