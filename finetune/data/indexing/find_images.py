"""Find images below folders, the same ones in the same order on every machine.

Links to folders are followed, as every tool does that walks through folders, and links to files are. A folder
that several ways lead to is read once, by the way without a link if there is one: otherwise its images would
count twice, and stand on both sides of a split. So all folders are walked through before any link is.
"""

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.choices import SUFFIXES
from finetune.data.image_files import folder_identity, list_entries, refused_members
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
    links: dict[str, str] = field(default_factory=dict)
    """links to folders that are not followed, and why"""
    refused: Mapping[str, str] = field(default_factory=dict)
    """members of an archive that are left out, and why"""


def list_folders(folder: Path) -> list[str]:
    """Return the names of the folders directly in a folder, links to folders among them, no hidden ones."""
    entries = list_entries(folder)
    return sorted((e.name for e in entries if e.is_folder and _may_hold_images(e.name)), key=os.fsencode)


def holds_images(folder: Path) -> bool:
    """Tell whether there is an image in or below a folder; links to folders are not looked into."""
    pending = [folder]
    while pending:
        for entry in list_entries(current := pending.pop()):
            if entry.is_folder and not entry.is_link and _may_hold_images(entry.name):
                pending.append(current / entry.name)
            elif not entry.is_folder and is_image_name(entry.name):
                return True
    return False


def find_images(root: Path, folder: str) -> FoundImages:
    """Find the images in `folder` of `root` and below it.

    An image is what is named like one; the scan finds out whether it is.

    Raises:
        DataError: a folder that cannot be listed.
    """
    return find_images_of_parts(root, [folder])[0]


def find_images_of_parts(root: Path, folders: Sequence[str]) -> list[FoundImages]:
    """Find the images of several folders of `root`, so that no folder is read for two of them.

    Raises:
        DataError: two of the folders are one, or one that cannot be listed.
    """
    walk = _Walk(root)
    found = [walk.begin(folder) for folder in folders]
    for one in found:
        walk.follow_links(one)
        one.images.sort(key=os.fsencode)
    if found:
        found[0].refused = refused_members(root)
    return found


def is_image_name(name: str) -> bool:
    """Tell whether a file is named like an image that is not hidden."""
    return not name.startswith(".") and suffix_of(name) in SUFFIXES


def suffix_of(name: str) -> str:
    """Return the ending of a file's name in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


class _Walk:
    """A walk through folders that enters each of them once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[Hashable, str] = {}
        self._links: list[str] = []

    def begin(self, folder: str) -> FoundImages:
        """Walk through a folder and those below it; links wait."""
        found = FoundImages()
        if self._seen_before(folder) is not None:
            earlier, path = self._seen[folder_identity(self._root / folder)], self._root
            raise DataError(
                f"{printable(str(path / folder))} is {printable(str(path / earlier))} by another way: its "
                "images would be in two splits.\nRemove the link, or let it lead to other images."
            )
        self._enter(folder, found)
        found.links = dict.fromkeys(self._links, "")
        self._links = []
        return found

    def follow_links(self, found: FoundImages) -> None:
        """Follow the links below a folder that was walked through, and those behind them."""
        pending, found.links = sorted(found.links, key=os.fsencode, reverse=True), {}
        while pending:
            link = pending.pop()
            reason = self._reason_against(link)
            if reason is not None:
                found.links[link] = reason
                continue
            self._enter(link, found)
            pending += sorted(self._links, key=os.fsencode, reverse=True)
            self._links = []

    def _reason_against(self, link: str) -> str | None:
        path = self._root / link
        if Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path)):
            return "it leads back to a folder that it is in"
        earlier = self._seen_before(link)
        return None if earlier is None else f"it leads to {earlier}, which is read there"

    def _seen_before(self, folder: str) -> str | None:
        return self._seen.get(folder_identity(self._root / folder))

    def _enter(self, folder: str, found: FoundImages) -> None:
        pending = [folder]
        while pending:
            current = pending.pop()
            identity = folder_identity(self._root / current)
            if identity in self._seen:  # below a link that leads to a folder above one that was read
                found.links[current] = f"it is {self._seen[identity]}, which is read there"
                continue
            self._seen[identity] = current
            for entry in list_entries(self._root / current):
                name = f"{current}/{entry.name}" if current else entry.name
                if not entry.is_folder:
                    _note_file(entry.name, name, found)
                elif entry.is_link and _may_hold_images(entry.name):
                    self._links.append(name)
                elif _may_hold_images(entry.name):
                    pending.append(name)


def _may_hold_images(name: str) -> bool:
    return not name.startswith(".") and name not in _NEVER_CLASSES


def _note_file(file_name: str, name: str, found: FoundImages) -> None:
    suffix = suffix_of(file_name)
    if file_name.startswith("."):
        found.ignored["hidden"] += 1
    elif suffix in SUFFIXES:
        found.images.append(name)
    else:
        found.ignored[printable(suffix) or "without ending"] += 1
