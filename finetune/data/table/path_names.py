"""What the text of a cell may mean as the path of an image."""

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from posixpath import basename, dirname, splitext
from urllib.parse import unquote

from finetune.choices import SUFFIXES

_ASKED = re.compile(r"^(\w+://[^?#]*)[?#].*")
"""an address: what names the file in it, and what a server is asked to do with that"""
_DETOUR = re.compile(r"/[./]|/$|^$")
"""what a path may have that leads another way to the same file; names of hidden files as well"""


def looks_like_image(cell: str) -> bool:
    """Tell whether a cell ends like the name of an image."""
    return splitext(cell.strip())[1].lower() in SUFFIXES


def variants(cell: str) -> list[str]:
    """Return what a cell may mean as a path, in the order in which that is tried.

    As it is; without blanks around it; as an address, without `?width=300`; with `%20` read as in
    addresses; with slashes for back slashes.
    """
    stripped = cell.strip()
    read = unquote(stripped)
    address = unquote(_ASKED.sub(r"\1", stripped))
    texts = (cell, stripped, address, read, read.replace("\\", "/"), stripped.replace("\\", "/"))
    return list(dict.fromkeys(texts))


def relative_name(cell: str, root: Path) -> str:
    """Write a path one way, so that `a/./b.jpg` and `a/b.jpg` are one image."""
    if os.sep == "/" and not cell.startswith((".", "/")) and not _DETOUR.search(cell):
        return cell
    path = Path(os.path.normpath(root / cell))
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.as_posix() if os.path.isabs(cell) else Path(os.path.relpath(path, root)).as_posix()


def parts_of(path: str, *, strip: bool) -> list[str]:
    """Return the parts of a path from the last to the first; `strip` takes the ending off the last."""
    last, folder = basename(path), dirname(path).strip("/")
    return [splitext(last)[0] if strip else last, *(reversed(folder.split("/")) if folder else ())]


def parts_in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Count the parts that two paths have in common at their ends."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
