"""Find images below folders, the same ones in the same order on every machine.

Links to folders are followed, as every tool does that walks through folders, and links to files are. A folder
that several ways lead to is read once, by the way without a link if there is one: otherwise its images would
count twice, and stand on both sides of a split. So all folders are walked through before any link is.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from finetune.choices import SUFFIXES
from finetune.data.image_files import each_entry, folder_identity, folder_stamp, list_entries, refused_members
from finetune.errors import DataError
from finetune.progress import Bar, NewBar
from finetune.text import in_byte_order, printable

_NEVER_CLASSES = ("__MACOSX", "__pycache__", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")

_report_files: ContextVar[Callable[[int], None]] = ContextVar("report_files", default=lambda number: None)
_BAR_AFTER = 0.5  # seconds of listing


@contextmanager
def listing_bar(new_bar: NewBar) -> Iterator[None]:
    """Show how many files have been found while folders are listed inside; nothing where it takes no time."""
    began = time.perf_counter()
    with ExitStack() as stack:
        bar: Bar | None = None

        def report(files: int) -> None:
            nonlocal bar
            if bar is None and time.perf_counter() - began > _BAR_AFTER:
                bar = stack.enter_context(new_bar("listing", None, "files"))
            if bar is not None:
                bar.advance_to(files)

        stack.callback(_report_files.reset, _report_files.set(report))
        yield


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
        for entry in each_entry(current := pending.pop()):
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
    known = _memory.recall(root, folders)
    if known is not None:
        return known
    walk = _Walk(root)
    found = [walk.begin(folder) for folder in folders]
    for one in found:
        walk.follow_links(one)
        one.images = in_byte_order(one.images)
    if found:
        found[0].refused = refused_members(root)
    _memory.remember(walk, folders, found)
    return found


def is_image_name(name: str) -> bool:
    """Tell whether a file is named like an image that is not hidden."""
    return not name.startswith(".") and suffix_of(name) in SUFFIXES


def suffix_of(name: str) -> str:
    """Return the ending of a file's name in lower case, with its dot."""
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and stem.strip(".") else ""  # as os.path.splitext, in half the time


class _Walk:
    """A walk through folders that enters each of them once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stamps: dict[Path, Hashable | None] = {}
        """of the folders that were entered"""
        self.met_link = False
        self._files = 0
        self._seen: dict[Hashable, str] = {}
        self._links: list[str] = []

    def begin(self, folder: str) -> FoundImages:
        """Walk through a folder and those below it; links wait."""
        found = FoundImages()
        if self._seen_before(folder) is not None:
            earlier, path = self._seen[folder_identity(self.root / folder)], self.root
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
        path = self.root / link
        if Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path)):
            return "it leads back to a folder that it is in"
        earlier = self._seen_before(link)
        return None if earlier is None else f"it leads to {earlier}, which is read there"

    def _seen_before(self, folder: str) -> str | None:
        return self._seen.get(folder_identity(self.root / folder))

    def _enter(self, folder: str, found: FoundImages) -> None:
        pending = [folder]
        while pending:
            current = pending.pop()
            identity = folder_identity(self.root / current)
            if identity in self._seen:  # below a link that leads to a folder above one that was read
                found.links[current] = f"it is {self._seen[identity]}, which is read there"
                continue
            self._seen[identity] = current
            path = self.root / current
            self.stamps[path] = folder_stamp(path)
            entries = list_entries(path)
            self._files += len(entries)
            _report_files.get()(self._files)
            for entry in entries:
                self.met_link = self.met_link or entry.is_link
                name = f"{current}/{entry.name}" if current else entry.name
                if not entry.is_folder:
                    _note_file(entry.name, name, found)
                elif entry.is_link and _may_hold_images(entry.name):
                    self._links.append(name)
                elif _may_hold_images(entry.name):
                    pending.append(name)


class _LastListing:
    """What was found last, which holds for as long as no folder changes: `train FOLDER` asks twice.

    Links may lead elsewhere without a trace in the folder that they are in, so a walk that met one counts for
    nothing.
    """

    def __init__(self) -> None:
        self._asked: tuple[Path, tuple[str, ...]] | None = None
        self._stamps: Mapping[Path, Hashable | None] = {}
        self._found: list[FoundImages] = []

    def remember(self, walk: _Walk, folders: Sequence[str], found: list[FoundImages]) -> None:
        """Keep what a walk has found."""
        certain = not walk.met_link and None not in walk.stamps.values()
        self._asked = (walk.root, tuple(folders)) if certain else None
        self._stamps, self._found = walk.stamps, found if certain else []

    def recall(self, root: Path, folders: Sequence[str]) -> list[FoundImages] | None:
        """Return what there was to find, if it was found last and still is there; else None."""
        if self._asked != (root, tuple(folders)):
            return None
        try:
            unchanged = all(folder_stamp(folder) == stamp for folder, stamp in self._stamps.items())
        except DataError:  # a folder is gone
            return None
        return self._found if unchanged else None


_memory = _LastListing()


def _may_hold_images(name: str) -> bool:
    return not name.startswith(".") and name not in _NEVER_CLASSES


def _note_file(file_name: str, name: str, found: FoundImages) -> None:
    if file_name.startswith("."):
        found.ignored["hidden"] += 1
    elif file_name[file_name.rfind(".") :] in SUFFIXES or (suffix := suffix_of(file_name)) in SUFFIXES:
        found.images.append(name)
    else:
        found.ignored[printable(suffix) or "without ending"] += 1
