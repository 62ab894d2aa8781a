"""Which folders of a data set train, validate and test, and what has to be true of the classes in each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune.choices import ARCHIVE_SUFFIXES, SPLITS, TABLE_SUFFIXES, CaseVariants, Split, split_of
from finetune.data.archives.refusal import refuse_packed
from finetune.data.data_layout import ANYHOW, FolderOptions
from finetune.data.image_files import file_exists, is_archive, is_folder, list_entries
from finetune.data.indexing.check_part import check_at_least_two, check_not_empty, train_alone
from finetune.data.indexing.class_names import check_class_names
from finetune.data.indexing.doubtful_folders import refuse_doubtful_classes
from finetune.data.indexing.find_images import is_image_name, list_folders
from finetune.data.indexing.foreign_formats import refuse_foreign
from finetune.data.indexing.nested_classes import refuse_nested_classes
from finetune.data.indexing.part import Part, find_split_parts
from finetune.data.indexing.part_from_list import lies_in_no_class, part_from_list
from finetune.data.indexing.split_folders import find_split_folders, refuse_splits_below, unwrapped
from finetune.data.indexing.split_lists_above import split_list_above
from finetune.data.split import Fold, Validation
from finetune.data.table import is_table
from finetune.data.table.spreadsheet import refuse_spreadsheet
from finetune.errors import DataError
from finetune.text import counted, expanded, printable, quoted, where_paths_begin, with_counts

_LISTED = 8

DEFAULT_FRACTION = 0.2
"""part of each class that is held out when neither a folder nor a fraction is given"""


def existing_folder(path: str | Path) -> Path:
    """Return a folder's absolute path.

    Raises:
        DataError: there is none.
    """
    root = expanded(path).absolute()
    shown = printable(str(root))
    if is_folder(root):
        return root
    if not file_exists(root):
        raise DataError(f"no such directory: {shown}.{where_paths_begin(path)}")
    refuse_spreadsheet(root)
    refuse_foreign(root)
    if (refusal := refuse_packed(root)) is not None:
        raise refusal
    raise DataError(
        f"{shown} is not a folder; expected a folder of images, an archive of them "
        f"({' '.join(ARCHIVE_SUFFIXES)}), or a table ({' '.join(TABLE_SUFFIXES)})."
    )


def data_folder(path: str | Path, options: FolderOptions = ANYHOW) -> Path:
    """Return the absolute path of a folder that is a data set.

    Of an archive that is the folder alone in it, if there is one and it is not that of a split: what was
    packed was called something. Where it is said what folders are, no further one is gone into.

    Raises:
        DataError: there is none.
    """
    root = existing_folder(path)
    if is_archive(path):
        said = options.layout.values() if isinstance(options.layout, Mapping) else ()
        while (inner := _alone(root)) is not None and inner not in said and split_of(inner) is None:
            root /= inner
            if options.layout != "auto":
                break
    return root


def _alone(folder: Path) -> str | None:
    """Return the one folder directly in a folder that holds no image beside it."""
    folders = list_folders(folder)
    beside = any(is_image_name(entry.name) for entry in list_entries(folder) if not entry.is_folder)
    return folders[0] if len(folders) == 1 and not beside else None


@dataclass(frozen=True)
class FoundParts:
    """The parts of a data set."""

    parts: tuple[Part, ...]
    """training first"""
    warnings: tuple[str, ...] = ()
    """what the user should know"""
    unused: Mapping[str, str] = field(default_factory=dict)
    """folders beside those of the parts, and why nothing was made of them"""


def find_parts(root: Path, val: Validation, options: FolderOptions = ANYHOW) -> FoundParts:
    """Find the parts of a data set from what there is and what `data.val` and `data.layout` say.

    Raises:
        DataError: folders that contradict these or each other, or that can be read in two ways.
        ConfigError: a pattern of labels that takes too long.
    """
    named = isinstance(val, str) and val != "auto" and not is_table(val)
    found = find_split_folders(root, str(val) if named else None, options)
    if not found.folders:
        parts = find_split_parts(root, {"train": ""}, options)
        if options == ANYHOW:
            _refuse_doubtful(parts[0])
        above = split_list_above(root, parts[0].found.images) if options == ANYHOW and val == "auto" else []
        return FoundParts(parts, tuple(above))
    folders = {split: unwrapped(root, folder) for split, folder in found.folders.items()}
    if options.label_pattern is None:
        refuse_splits_below(root / folders["train"])
    warnings = _warn_of_val(root, folders, val)
    ordered = {split: folders[split] for split in SPLITS if split in folders}
    train, *others = find_split_parts(root, ordered, options)
    if options.layout == "auto" and options.label_pattern is None:
        _refuse_doubtful(train)
    parts, unused = (train,), dict.fromkeys(found.unused, "is named like no split")
    for split in others:
        part = split
        if part.pattern is None and lies_in_no_class(part) and not lies_in_no_class(train):
            part = part_from_list(part, train.counts)
        if part.pattern is not None and not part.labels:  # such as the test images of a competition
            unused[part.folder] = f"holds no image with a class in its name, by {part.pattern}"
        elif part.split == "test" and part.listed is None and lies_in_no_class(part):
            unused[part.folder] = "holds images without class folders"
        else:
            parts += (part,)
    if unused:
        warnings.append(f"folders in {printable(str(root))} that are not used: {quoted(unused)}")
    return FoundParts(parts, tuple(warnings), unused)


def _refuse_doubtful(train: Part) -> None:
    """Refuse class folders that another reading makes sense of, or that hardly are any."""
    refuse_nested_classes(train)
    refuse_doubtful_classes(train)


def _warn_of_val(root: Path, folders: Mapping[Split, str], val: Validation) -> list[str]:
    """Refuse a fraction beside a folder of validation images; tell what is validated on without one."""
    where, val_folder = printable(str(root)), folders.get("val")
    if val_folder and isinstance(val, float | Fold):
        raise DataError(
            f"data.val is {val}, but {where} holds a folder {val_folder}; drop data.val to validate on "
            "that folder, or move it away to hold out a part of train."
        )
    if val_folder or val != "auto":
        return []
    return [f"{where} holds no folder val: {DEFAULT_FRACTION:.0%} of each class of train is held out"]


def check_parts(found: FoundParts, case_variants: CaseVariants) -> tuple[str, ...]:
    """Check the classes of all parts against each other; return what to warn of.

    Raises:
        DataError: no images, fewer than two classes, names of classes that are nearly the same, or classes
            that the training images have not.
    """
    parts, train = found.parts, found.parts[0]
    for part in parts:
        check_not_empty(part, train)
    check_class_names([name for part in parts for name in part.counts], train.root, case_variants)
    check_at_least_two(train)
    lines = [*found.warnings]
    for part in parts[1:]:
        extra = {name: n for name, n in part.counts.items() if n and name not in train.counts}
        if extra:
            raise DataError(
                f"{part} has classes that {train} has not: {with_counts(extra)}.\n"
                f"Rename them as they are there, or move them out of the data set.{train_alone(train, part)}"
            )
        absent = {name: n for name, n in train.counts.items() if not part.counts.get(name)}
        if absent:
            lines.append(f"classes of {train} without an image in {part}: {with_counts(absent)}")
    return (*lines, *(line for part in parts for line in part_warnings(part)))


def part_warnings(part: Part) -> list[str]:
    """Say what was passed over in a part."""
    warnings = []
    outside = len(part.found.images) - len(part.labels) - part.aside
    if part.aside:
        warnings.append(
            f"{counted(part.aside, 'image')} of {part} called like masks of others: not used; data.layout: "
            "classes takes them for images of their classes"
        )
    if outside:
        warnings.append(f"{counted(outside, 'image')} of {part} {part.without_label}: not used")
    warnings += _links_and_members(part)
    if part.found.ignored:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(part.found.ignored.items()))
        warnings.append(f"ignored {counted(part.found.ignored.total(), 'file')} in {part}: {kinds}")
    return warnings


def _links_and_members(part: Part) -> list[str]:
    """Say which links were not followed, and which members of an archive were refused; of many the first."""
    where = printable(str(part.root))
    lines = [
        f"link {printable(link)} in {where} is not followed: {printable(why)}"
        for link, why in part.found.links.items()
    ]
    lines += [
        f"member {printable(name)} of {where} is left out: {why}" for name, why in part.found.refused.items()
    ]
    more = [f"… and {len(lines) - _LISTED:,} more of these"] if len(lines) > _LISTED else []
    return [*lines[:_LISTED], *more]
