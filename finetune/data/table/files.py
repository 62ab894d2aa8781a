"""Which file a cell of a table names: as it is written, without its ending, or in a folder further down."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from posixpath import basename, dirname, join, normpath, splitext
from urllib.parse import unquote

from finetune.choices import SUFFIXES
from finetune.data.image_files import in_archive, is_other_than_folder, list_entries
from finetune.data.indexing.find_images import find_images
from finetune.data.table.path_names import (
    looks_like_image,
    parts_in_common,
    parts_of,
    relative_name,
    variants,
)
from finetune.errors import DataError
from finetune.text import counted, shortened

_MOST_FILES = 1_000_000
"""files below a folder that are looked through for those that cells name"""
_TRIED = 1_000
"""cells that are looked for in another place before all of them are"""
_FEW = 0.02
"""share of them that are found by chance"""
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""what annotation tools put before the name of a file"""


@dataclass(frozen=True)
class LocatedFiles:
    """The files that the cells of a column name."""

    found: Mapping[str, tuple[str, ...]]
    """by cell: the file, as a POSIX path relative to the folder of the images; several where they all fit"""
    number: int
    """of different cells"""
    note: str = ""
    """what was done to find them, if anything"""
    folders: tuple[str, ...] = ()
    """the folders of files that fit the same cells, if one of them holds a file for all cells"""

    @property
    def share(self) -> float:
        """The share of cells that name a file (0–1)."""
        return len(self.found) / max(1, self.number)


class ImageFiles:
    """The image files in and below a folder, which is looked through at most once, and only if need be."""

    def __init__(self, root: Path | None) -> None:
        """Take the folder that cells are relative to; None where there are no files, as of built-in data."""
        self.root = root
        self._listed: dict[str, dict[str, list[str]]] = {}
        self._parts: dict[str, list[str]] = {}

    def names_one(self, cell: str) -> bool:
        """Tell whether a cell names a file, perhaps without its ending or in a folder further down."""
        if self.root is None or not cell.strip():
            return False
        return bool(self._direct(cell) or self._below(cell))

    def holds(self, cell: str) -> bool:
        """Tell whether a cell names a file in the folder itself, perhaps without its ending."""
        return self.root is not None and bool(self._direct(cell))

    def name_of(self, cell: str, located: LocatedFiles) -> str:
        """Return the file of a cell as a POSIX path relative to the folder; as written if there is none.

        Paths are written one way, so that `a/./b.jpg` and `a/b.jpg` are one image.
        """
        if self.root is None:
            return relative_name(cell, Path("/"))
        found = located.found.get(cell)
        return relative_name(found[0] if found else variants(cell)[-1], self.root)

    def locate(self, cells: Iterable[str]) -> LocatedFiles:
        """Find the files that the cells of a column name.

        In the folder itself if half of the cells or more name a file there; else where most are found: there,
        below it, or, as of images that were uploaded somewhere, files whose names end what is written.
        """
        texts = sorted({cell for cell in cells if cell.strip()})
        if self.root is None:
            return LocatedFiles({}, len(texts))
        best = _located(texts, {cell: self._direct(cell) for cell in texts})
        for find in (self._below, self._uploaded):
            if best.share >= 0.5:
                break
            sample = texts[:: max(1, len(texts) // _TRIED)]
            if _located(sample, {cell: find(cell) for cell in sample}).share <= max(best.share, _FEW):
                continue
            other = _located(texts, {cell: find(cell) for cell in texts})
            best = max(best, other, key=lambda located: located.share)
        return best

    def _direct(self, cell: str) -> list[str]:
        """Return the file that a cell names in the folder itself, or all that differ in the ending alone."""
        if self.has(cell):  # of which there may be a million
            return [cell]
        for text in variants(cell)[1:]:
            if self.has(text):
                return [text]
        for text in variants(cell):
            if not looks_like_image(text) and (names := self._without_ending(text)):
                return names
        return []

    def has(self, text: str) -> bool:
        """Tell whether there is a file of a name."""
        assert self.root is not None
        path = os.path.join(self.root, text)
        try:
            return is_other_than_folder(path)
        except (OSError, ValueError):
            return False

    def _without_ending(self, text: str) -> list[str]:
        """Return the images that a path without an ending may mean."""
        folder, stem = dirname(text), basename(text)
        if folder not in self._listed:
            self._listed[folder] = _by_stem(self._list(folder))
        return [join(folder, name) for name in self._listed[folder].get(stem, [])]

    def _list(self, folder: str) -> list[str]:
        assert self.root is not None
        try:
            return sorted(entry.name for entry in list_entries(self.root / folder))
        except (DataError, ValueError):
            return []

    def _below(self, cell: str) -> list[str]:
        """Return the files below the folder whose paths end as a cell does, or the other way round.

        Of an address, or a path on another machine, those that have the most of their ends in common.
        """
        for text in variants(cell) if self._tree else ():
            elsewhere = bool(re.match(r"/|\w+:", text))
            path = normpath(text)
            wanted = parts_of(path, strip=looks_like_image(path))
            files = self._tree.get(basename(path)) or (
                [] if looks_like_image(path) else self._stems.get(basename(path), [])
            )
            new = [name for name in files if name not in self._parts]
            self._parts |= {name: parts_of(name, strip=True) for name in new}
            score = {name: parts_in_common(self._parts[name], wanted) for name in files}
            whole = {name: min(len(wanted), 1 + name.count("/")) for name in files}
            found = [name for name in files if score[name] and (elsewhere or score[name] >= whole[name])]
            if found:
                most = max(score[name] for name in found)
                return [name for name in found if score[name] == most]
        return []

    def _uploaded(self, cell: str) -> list[str]:
        """Return the files whose names end an address: behind `-`, `_`, or another mark that is no letter."""
        if not self._tree or not re.search(r"[/\\?]", cell):
            return []
        lasts = [
            re.split(r"[/\\?=]", text)[-1] for text in dict.fromkeys((cell.strip(), unquote(cell.strip())))
        ]
        plain = [match[1] for match in map(_UPLOADED.fullmatch, lasts) if match]
        for whole in (*lasts, *plain):
            if found := self._tree.get(whole) or self._cleaned.get(whole):
                return found
        ends = (last[mark.end() :] for last in lasts for mark in re.finditer(r"[^A-Za-z0-9]", last))
        return sorted({name for end in ends for name in self._tree.get(end, [])})

    def _all(self) -> Iterable[str]:
        root = self.root
        return () if root is None else find_images(root, "").images if in_archive(root) else _walk(root)

    @cached_property
    def _tree(self) -> Mapping[str, list[str]]:
        """The images below the folder by their names; empty if there are too many files to look through."""
        names: defaultdict[str, list[str]] = defaultdict(list)
        for number, name in enumerate(self._all()):
            if number >= _MOST_FILES:
                return {}
            names[basename(name)].append(name)
        return dict(names)

    @cached_property
    def _cleaned(self) -> Mapping[str, list[str]]:
        """The same by names as web servers store them: `_` for blanks, without other marks."""
        cleaned: defaultdict[str, list[str]] = defaultdict(list)
        for base, names in self._tree.items():
            cleaned[re.sub(r"[^-\w.]", "", base.strip().replace(" ", "_"))] += names
        return dict(cleaned)

    @cached_property
    def _stems(self) -> Mapping[str, list[str]]:
        """The same by names without endings."""
        stems: defaultdict[str, list[str]] = defaultdict(list)
        for base, names in self._tree.items():
            stems[splitext(base)[0]] += names
        return dict(stems)


class KnownFiles(ImageFiles):
    """Images of which the names are known, wherever they are: in folders, an archive, or the package."""

    def __init__(self, root: Path | None, names: Iterable[str]) -> None:
        """Take the names, and the folder that they are relative to; None if that is none."""
        super().__init__(root or Path("/"))
        self._names = dict.fromkeys(names)

    def has(self, text: str) -> bool:
        """Tell whether there is an image of a name."""
        assert self.root is not None
        return text in self._names or relative_name(text, self.root) in self._names

    def _list(self, folder: str) -> list[str]:
        return [basename(name) for name in self._names if dirname(name) == normpath(folder or ".").strip(".")]

    def _all(self) -> Iterable[str]:
        return self._names


def _located(texts: Sequence[str], found: Mapping[str, list[str]]) -> LocatedFiles:
    """Gather what was found, and the folders to choose from where one holds a file for every cell."""
    files = {cell: tuple(names) for cell, names in found.items() if names}
    otherwise = {cell: names for cell, names in files.items() if names != (cell,)}
    return LocatedFiles(files, len(texts), _note(otherwise), tuple(_rivals(files)))


def _rivals(found: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the folders of files that fit the same cells, fullest first, if one holds a file for all."""
    several = [cell for cell, files in found.items() if len(files) > 1]
    if not several:
        return []
    folders = {_prefix(cell, file) for cell in several for file in found[cell]}
    numbers = Counter(folder for cell, files in found.items() for folder in {_prefix(cell, f) for f in files})
    ordered = sorted(folders, key=lambda folder: (-numbers[folder], folder))
    return ordered if len(ordered) > 1 and numbers[ordered[0]] == len(found) else []


def _prefix(cell: str, file: str) -> str:
    """Return the folder that a cell is relative to if it means a file."""
    below = dirname(variants(cell)[-1])
    folder = dirname(file)
    if below and f"/{folder}".endswith(f"/{below}"):
        return folder[: -len(below)].rstrip("/")
    return folder


def _note(found: Mapping[str, tuple[str, ...]]) -> str:
    """Say what was done to find the files of cells that are written otherwise, if there are any."""
    single = [(variants(cell)[-1], files[0]) for cell, files in found.items() if len(files) == 1]
    moved = [(text, file) for text, file in single if dirname(normpath(text)) != dirname(normpath(file))]
    folders = sorted({dirname(file) for _, file in moved})
    lines = []
    if len(folders) == 1:
        lines.append(f"in {shortened(folders[0]) or '.'}/")
    elif folders:
        lines.append(f"in {counted(len(folders), 'folder')}")
    if any(looks_like_image(text) and basename(text) != basename(file) for text, file in single):
        lines.append("by the ends of their addresses")
    added = {splitext(file)[1] for text, file in single if splitext(basename(file))[0] == basename(text)}
    if added - {""}:
        lines.append(f"with {' '.join(sorted(added - {''}))} added")
    if any("\\" in cell and "\\" not in files[0] for cell, files in found.items()):
        lines.append("with / for \\")
    return " ".join(lines)


def _walk(root: Path) -> Iterator[str]:
    """Return the images below a folder as POSIX paths, in order; links are followed, circles are not."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX", "@eaDir")))
        below = Path(folder).relative_to(root).as_posix()
        for name in sorted(files):
            if not name.startswith(".") and splitext(name)[1].lower() in SUFFIXES:
                yield name if below == "." else f"{below}/{name}"


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    stems: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        stem, ending = splitext(name)
        if ending.lower() in SUFFIXES:
            stems[stem].append(name)
    return stems
