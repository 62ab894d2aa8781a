"""Where images lie: list folders, and tell whether two ways lead to one folder."""

import os
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

from finetune.errors import DataError
from finetune.text import printable


class Entry(NamedTuple):
    """What lies directly in a folder."""

    name: str
    is_folder: bool
    """or a link to one; a link that leads nowhere or in a circle of links is none"""
    is_link: bool


def list_entries(folder: Path) -> list[Entry]:
    """Return what lies directly in a folder, in the order of the file system.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return [Entry(entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries]
    except OSError as error:
        raise _unlistable(folder, error) from error


def folder_identity(folder: Path) -> Hashable:
    """Return what is the same for two ways to one folder, and for them alone.

    Raises:
        DataError: it cannot be looked at.
    """
    try:
        status = folder.stat()
    except OSError as error:
        raise _unlistable(folder, error) from error
    return status.st_dev, status.st_ino


def _unlistable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot list {printable(str(folder))}: {(error.strerror or '').lower()}.")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()  # asks the file system about links alone: the rest came with the listing
    except OSError:
        return False
