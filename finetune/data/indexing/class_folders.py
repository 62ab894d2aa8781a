"""Which folders of a data set train, validate and test, and the class folders in each."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.choices import SUFFIXES, TABLE_SUFFIXES, TEST_FOLDER, TRAIN_FOLDER, VAL_FOLDERS, Split
from finetune.data.index import Validation
from finetune.data.indexing.find_images import FoundImages, find_images, list_folders
from finetune.data.split import Fold
from finetune.data.table import is_table
from finetune.errors import DataError
from finetune.text import printable

SPLIT_FOLDERS = (TRAIN_FOLDER, *VAL_FOLDERS, TEST_FOLDER)

DEFAULT_FRACTION = 0.2
"""part of each class that is held out when neither a folder nor a fraction is given"""

_SHOWN = 8  # names in a message


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
        raise DataError(f"no such directory: {shown}.")
    if not root.is_dir():
        raise DataError(
            f"{shown} is not a folder; expected a folder of images, or a table ({' '.join(TABLE_SUFFIXES)})."
        )
    return root


def find_parts(root: Path, val: Validation) -> tuple[list[Part], list[str]]:
    """Find the parts of a data set, training first, from what there is and what was asked for.

    Returns the parts, and what the user should know.

    Raises:
        DataError: folders that contradict `val` or each other.
    """
    folders = list_folders(root)
    named = isinstance(val, str) and val != "auto" and not is_table(val)
    val_folders = [str(val)] if named else [name for name in VAL_FOLDERS if name in folders]
    if named:
        _check_named(root, str(val), folders)
    # A folder `train` among others is a class (train, bus, car) unless validation images lie beside it.
    if TRAIN_FOLDER not in folders or not (val_folders or set(folders) <= {TRAIN_FOLDER, TEST_FOLDER}):
        return [find_part(root, "", "train")], []
    where = printable(str(root))
    if len(val_folders) > 1:
        raise DataError(f"{where} holds {' and '.join(val_folders)}; name one of them in data.val.")
    if val_folders and isinstance(val, float | Fold):
        raise DataError(
            f"data.val is {val}, but {where} holds a folder {val_folders[0]}; drop data.val to validate on "
            "that folder, or move it away to hold out a part of train."
        )
    parts = [find_part(root, TRAIN_FOLDER, "train")]
    parts += [find_part(root, name, "val") for name in val_folders]
    parts += [find_part(root, TEST_FOLDER, "test")] if TEST_FOLDER in folders else []
    warnings = []
    if not val_folders and val == "auto":
        warnings.append(
            f"{where} holds no folder val: {DEFAULT_FRACTION:.0%} of each class of train is held out"
        )
    unused = sorted(set(folders) - {part.folder for part in parts}, key=os.fsencode)
    if unused:
        warnings.append(f"folders in {where} that are not used: {quoted(unused)}")
    return parts, warnings


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
            f"no class folders in {part}: {len(part.found.images)} images lie directly in it; "
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


def part_warnings(part: Part) -> list[str]:
    """Say what was passed over in a part."""
    warnings = []
    outside = sum(part.class_of(name) is None for name in part.found.images)
    if outside:
        warnings.append(f"{outside} images of {part} lie outside the class folders and are not used")
    if part.found.links:
        warnings.append(f"links to folders are not followed in {part}: {quoted(part.found.links)}")
    if part.found.ignored:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(part.found.ignored.items()))
        warnings.append(f"ignored {part.found.ignored.total()} files in {part}: {kinds}")
    return warnings


def quoted(names: Iterable[str]) -> str:
    """List some names for a message, the first few if there are many."""
    return _some([repr(name) for name in names])


def with_counts(counts: Mapping[str, int]) -> str:
    """List class names with their numbers of images for a message."""
    return _some([f"{name!r} ({n} {'image' if n == 1 else 'images'})" for name, n in counts.items()])


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _check_named(root: Path, val: str, folders: Sequence[str]) -> None:
    where = printable(str(root))
    if val not in folders:
        raise DataError(f"data.val: no folder {val!r} in {where}; there is {quoted(folders) or 'none'}.")
    if TRAIN_FOLDER not in folders:
        raise DataError(f"data.val: {val!r} needs a folder 'train' beside it; {where} holds none.")


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
