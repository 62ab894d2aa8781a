"""Which folders of a data set train, validate and test, and the class folders in each."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.choices import SPLITS, SUFFIXES, TABLE_SUFFIXES, Split
from finetune.data.indexing.find_images import FoundImages, find_images, list_folders
from finetune.data.indexing.split_folders import find_split_folders, refuse_splits_below
from finetune.data.split import Fold, Validation
from finetune.data.table import is_table
from finetune.errors import DataError
from finetune.text import counted, printable, quoted, where_paths_begin, with_counts

DEFAULT_FRACTION = 0.2
"""part of each class that is held out when neither a folder nor a fraction is given"""


@dataclass(frozen=True)
class Part:
    """A folder of class folders: one split, or the whole data set."""

    root: Path
    folder: str
    """relative to the root, empty for the root itself"""
    split: Split
    found: FoundImages
    counts: Mapping[str, int]
    """number of images by class folder, in the order of the names' bytes"""

    def __str__(self) -> str:
        return printable(str(self.root / self.folder))

    def class_of(self, name: str) -> str | None:
        """Return the class folder that an image lies in or below, `None` if it lies beside them."""
        first = name.removeprefix(f"{self.folder}/" if self.folder else "").split("/", 1)[0]
        return first if first in self.counts else None


def existing_folder(path: str | Path) -> Path:
    """Return a folder's absolute path.

    Raises:
        DataError: there is none.
    """
    root = Path(path).expanduser().absolute()
    shown = printable(str(root))
    if not os.path.lexists(root):
        raise DataError(f"no such directory: {shown}.{where_paths_begin(path)}")
    if not root.is_dir():
        raise DataError(
            f"{shown} is not a folder; expected a folder of images, or a table ({' '.join(TABLE_SUFFIXES)})."
        )
    return root


@dataclass(frozen=True)
class FoundParts:
    """The parts of a data set."""

    parts: tuple[Part, ...]
    """training first"""
    warnings: tuple[str, ...] = ()
    """what the user should know"""
    unused: tuple[str, ...] = ()
    """folders beside those of the parts"""


def find_parts(root: Path, val: Validation) -> FoundParts:
    """Find the parts of a data set from what there is and what `data.val` says.

    Raises:
        DataError: folders that contradict `val` or each other, or that can be read in two ways.
    """
    named = isinstance(val, str) and val != "auto" and not is_table(val)
    found = find_split_folders(root, str(val) if named else None)
    if not found.folders:
        return FoundParts((find_part(root, "", "train"),))
    refuse_splits_below(root / found.folders["train"])
    where, val_folder = printable(str(root)), found.folders.get("val")
    if val_folder and isinstance(val, float | Fold):
        raise DataError(
            f"data.val is {val}, but {where} holds a folder {val_folder}; drop data.val to validate on "
            "that folder, or move it away to hold out a part of train."
        )
    parts = (find_part(root, found.folders[split], split) for split in SPLITS if split in found.folders)
    warnings = []
    if not val_folder and val == "auto":
        warnings.append(
            f"{where} holds no folder val: {DEFAULT_FRACTION:.0%} of each class of train is held out"
        )
    if found.unused:
        warnings.append(f"folders in {where} that are not used: {quoted(found.unused)}")
    return FoundParts(tuple(parts), tuple(warnings), found.unused)


def find_part(root: Path, folder: str, split: Split) -> Part:
    """Find the class folders in one folder and the images in them.

    Raises:
        DataError: a class folder that is a link out of the root.
    """
    found = find_images(root, folder)
    counts = dict.fromkeys(list_folders(root / folder), 0)
    part = Part(root, folder, split, found, counts)
    for name in found.images:
        class_name = part.class_of(name)
        if class_name is not None:
            counts[class_name] += 1
    _check_class_links(part)
    return part


def check_not_empty(part: Part) -> None:
    """Check that a part has class folders, and images in each.

    Raises:
        DataError: it has not.
    """
    if not part.counts and part.found.images:
        raise DataError(
            f"no class folders in {part}: {counted(len(part.found.images), 'image')} lie directly in it; "
            "put the images of each class into a folder of its own."
        )
    if not any(part.counts.values()):
        endings = " ".join(sorted(SUFFIXES))
        raise DataError(f"no images in {part} (looked for {endings} in folders, one for each class).")
    empty = [name for name, number in part.counts.items() if number == 0]
    if empty and part.split == "train":
        raise DataError(
            f"class folders of {part} without an image: {quoted(empty)}; "
            "add images, or remove what is no class."
        )


def check_at_least_two(train: Part) -> None:
    """Check that the training part has two classes or more.

    Raises:
        DataError: it has not.
    """
    if len(train.counts) < 2:
        raise DataError(
            f"need at least 2 classes; {train} has {len(train.counts)}: {with_counts(train.counts)}."
            + _hint(train)
        )


def _hint(train: Part) -> str:
    """Guess that the folder meant is one level further down."""
    for name in train.counts:
        below = train.root / train.folder / name
        if len(list_folders(below)) > 1:
            return f" Did you mean {printable(str(below))}?"
    return ""


def part_warnings(part: Part) -> list[str]:
    """Say what was passed over in a part."""
    warnings = []
    outside = sum(part.class_of(name) is None for name in part.found.images)
    if outside:
        warnings.append(f"{counted(outside, 'image')} of {part} outside the class folders: not used")
    if part.found.links:
        warnings.append(f"links to folders are not followed in {part}: {quoted(part.found.links)}")
    if part.found.ignored:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(part.found.ignored.items()))
        warnings.append(f"ignored {counted(part.found.ignored.total(), 'file')} in {part}: {kinds}")
    return warnings


def _check_class_links(part: Part) -> None:
    """Refuse to lose a class without a word because its folder is a link to another place."""
    inside = os.path.realpath(part.root)
    for link in part.found.links:
        target = os.path.realpath(part.root / link)
        if "/" not in link.removeprefix(f"{part.folder}/") and os.path.commonpath([inside, target]) != inside:
            raise DataError(
                f"{printable(str(part.root / link))} is a link out of {printable(str(part.root))}; links to "
                "folders are not followed: copy the folder, or link the files in it."
            )
