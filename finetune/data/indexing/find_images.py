"""Find images below a folder, the same ones in the same order on every machine."""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.choices import SUFFIXES
from finetune.errors import DataError
from finetune.text import printable

_NEVER_CLASSES = ("__MACOSX", "__pycache__")


@dataclass
class FoundImages:
    """What lies in and below a folder."""

    images: list[str] = field(default_factory=list)
    """POSIX paths relative to the root, in the order of their bytes"""
    ignored: Counter[str] = field(default_factory=Counter)
    """number of other files, by the ending of their name"""
    links: list[str] = field(default_factory=list)
    """links to folders, which are not followed"""


def list_folders(folder: Path) -> list[str]:
    """Return the names of the folders directly in a folder, without hidden ones and links to folders."""
    return sorted(
        (e.name for e in _entries(folder) if e.is_dir(follow_symlinks=False) and _may_hold_images(e.name)),
        key=os.fsencode,
    )


def list_folder_links(folder: Path) -> list[str]:
    """Return the names of the links to folders directly in a folder."""
    return sorted((e.name for e in _entries(folder) if e.is_symlink() and _is_folder(e)), key=os.fsencode)


def find_images(root: Path, folder: str) -> FoundImages:
    """Find the images in `folder` of `root` and below it.

    An image is what is named like one; the scan finds out whether it is. Links to files are followed, links
    to folders are not: one to a parent would repeat every image many times, also from training to validation,
    and the same folder would be another data set on another machine.
    """
    found = FoundImages()
    pending = [folder]
    while pending:
        current = pending.pop()
        for entry in _entries(root / current):
            name = f"{current}/{entry.name}" if current else entry.name
            if not _is_folder(entry):
                _note_file(entry.name, name, found)
            elif entry.is_symlink():
                found.links.append(name)
            elif _may_hold_images(entry.name):
                pending.append(name)
            elif _suffix(entry.name) in SUFFIXES:
                found.ignored[f"folders named *{_suffix(entry.name)}"] += 1
    found.images.sort(key=os.fsencode)
    found.links.sort(key=os.fsencode)
    return found


def _may_hold_images(name: str) -> bool:
    return not name.startswith(".") and name not in _NEVER_CLASSES and _suffix(name) not in SUFFIXES


def _note_file(file_name: str, name: str, found: FoundImages) -> None:
    suffix = _suffix(file_name)
    if file_name.startswith("."):
        found.ignored["hidden"] += 1
    elif suffix in SUFFIXES:
        found.images.append(name)
    else:
        found.ignored[printable(suffix) or "without ending"] += 1


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"cannot list {printable(str(folder))}: {(error.strerror or '').lower()}.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder or a link to one; broken and circular links are neither."""
    try:
        return stat.S_ISDIR(entry.stat().st_mode)
    except OSError:
        return False
