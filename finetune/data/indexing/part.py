"""One split of a data set of folders: its images, and the class of each."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.choices import Split
from finetune.data.data_layout import FolderOptions
from finetune.data.indexing.find_images import FoundImages, find_images_of_parts, list_folders
from finetune.data.indexing.label_pattern import labels_by_pattern
from finetune.data.indexing.set_aside import annotation_images
from finetune.text import printable


@dataclass(frozen=True)
class Part:
    """One split of a data set of folders, or the whole of it."""

    root: Path
    folder: str
    """relative to the root, empty for the root itself"""
    split: Split
    found: FoundImages
    counts: Mapping[str, int]
    """number of images by class, in the order of the names' bytes"""
    labels: Mapping[str, str]
    """the class of each image that has one"""
    groups: Mapping[str, str] = field(default_factory=dict)
    """the group of each image, such as its site, where folders say so"""
    pattern: str | None = None
    """what finds the class in the name of a file; None where folders say it"""
    aside: int = 0
    """masks of other images, which have no class"""
    class_of: Mapping[str, str] = field(default_factory=dict)
    """the class of each folder with images, relative to the part's own, where folders say the classes"""
    listed: str | None = None
    """the table in its folder that says the classes; None where folders or names do"""

    @property
    def without_label(self) -> str:
        """Say what images are that have no class."""
        if self.listed is not None:
            return f"of which {printable(self.listed)} says no class"
        return "outside the class folders" if self.pattern is None else "without a class in their names"

    def __str__(self) -> str:
        return printable(str(self.root / self.folder))


def find_split_parts(root: Path, folders: Mapping[Split, str], options: FolderOptions) -> tuple[Part, ...]:
    """Find the images of each split, and their classes.

    Args:
        root: folder of the data set.
        folders: the folder of each split, relative to the root.
        options: how classes are read.

    Raises:
        DataError: two of the folders are one, or one cannot be listed.
        ConfigError: the pattern of labels takes too long.
    """
    found = find_images_of_parts(root, list(folders.values()))
    return tuple(
        _by_pattern(root, folder, split, one, options.label_pattern)
        if options.label_pattern is not None
        else _by_folders(root, folder, split, one, options)
        for (split, folder), one in zip(folders.items(), found, strict=True)
    )


def _by_folders(root: Path, folder: str, split: Split, found: FoundImages, options: FolderOptions) -> Part:
    """Return a part whose classes are the folders in it, or those in these."""
    if options.layout == "innermost":
        return _by_innermost(root, folder, split, found)
    depth = options.depth
    aside = annotation_images(found.images) if options.layout == "auto" else frozenset()
    counts = dict.fromkeys(_class_folders(root, folder, found, depth), 0)
    beginning = len(folder) + 1 if folder else 0
    class_of: dict[str, str] = {}  # by folder: there are few, however many images there are
    labels: dict[str, str] = {}
    for name in [one for one in found.images if one not in aside] if aside else found.images:
        within = name[beginning:].rpartition("/")[0]
        label = class_of.get(within)
        if label is None:
            label = class_of[within] = _folder_at(depth, within)
        if label in counts:
            labels[name] = label
            counts[label] += 1
    groups: dict[str, str] = {}
    if depth or options.layout == "classes/groups":
        groups = {name: name[beginning:].split("/")[1 - depth] for name in labels}
    class_of = {within: label for within, label in class_of.items() if label in counts}
    return Part(root, folder, split, found, counts, labels, groups, aside=len(aside), class_of=class_of)


def _folder_at(depth: int, path: str) -> str:
    """Return the folder of a path so many folders down, empty if the path does not reach there."""
    folders = path.split("/")
    return folders[depth] if depth < len(folders) else ""


def _by_innermost(root: Path, folder: str, split: Split, found: FoundImages) -> Part:
    """Return a part whose classes are the folders that hold images, called by their paths."""
    beginning = len(folder) + 1 if folder else 0
    labels = {name: label for name in found.images if (label := name[beginning:].rpartition("/")[0])}
    counts = Counter(labels.values())
    ordered = {label: counts[label] for label in sorted(counts, key=os.fsencode)}
    return Part(root, folder, split, found, ordered, labels)


def _class_folders(root: Path, folder: str, found: FoundImages, depth: int) -> Sequence[str]:
    """Return the folders of classes, without links that are not followed."""
    above = [folder]
    for _ in range(depth):
        above = [inner for outer in above for inner in _inside(root, outer, found)]
    inner = {path.rpartition("/")[2] for outer in above for path in _inside(root, outer, found)}
    return sorted(inner, key=os.fsencode)


def _inside(root: Path, folder: str, found: FoundImages) -> list[str]:
    paths = [f"{folder}/{name}" if folder else name for name in list_folders(root / folder)]
    return [path for path in paths if path not in found.links]


def _by_pattern(root: Path, folder: str, split: Split, found: FoundImages, pattern: str) -> Part:
    labels = labels_by_pattern(pattern, found.images) if found.images else {}
    counts = dict.fromkeys(sorted(set(labels.values()), key=os.fsencode), 0)
    for label in labels.values():
        counts[label] += 1
    return Part(root, folder, split, found, counts, labels, pattern=pattern)
