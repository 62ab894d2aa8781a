"""Names from files and folders are data: made harmless here before anybody reads them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fsencode
from os.path import expanduser, isabs
from pathlib import Path

_SHOWN = 8  # names in a message

_FORMULA_STARTS = ("=", "+", "-", "@", "'")


def printable(text: str, *, keep: str = "") -> str:
    """Escape what must not reach a terminal: control characters, undecodable bytes, invisible marks.

    Args:
        text: a name, or a message that holds names.
        keep: characters that stay as they are, for instance the line ends of a message.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int = 120) -> str:
    """Return a text of somebody else's for a message: at most that many characters, cut with `…`."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def without_long_words(text: str, most: int = 400) -> str:
    """Cut every word of a message that is longer than any that people write; of paths both ends are left."""
    return re.sub(rf"\S{{{most + 1},}}", lambda word: f"{word[0][: most - 80]}…{word[0][-40:]}", text)


def expanded(path: str | PathLike[str]) -> Path:
    """Return a path with the home directory in place of `~`; `~nosuchuser` stays as it is.

    `Path.expanduser` would raise for such a user, before anybody could say that there is no such file.
    """
    return Path(expanduser(path))


def where_paths_begin(path: str | PathLike[str]) -> str:
    """Return what the error of a missing relative path adds: many expect the folder of the config."""
    return "" if isabs(expanduser(path)) else " Paths are relative to the current directory."


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with what it counts: `1 file`, `1,438 files`; with `plural` where an s is not enough."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shown_size(size: int) -> str:
    """Write a number of bytes as a person would: `12.4 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def protect_cell(cell: str) -> str:
    """Keep a spreadsheet from reading a name as a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def unprotect_cell(cell: str) -> str:
    """Return the name that `protect_cell` was given."""
    return cell[1:] if cell.startswith("'") else cell


def in_byte_order(names: Iterable[str]) -> list[str]:
    """Sort names by their bytes, which no locale changes.

    Characters of UTF-8 stand in the order of their bytes; bytes that are none do not.
    """
    names = list(names)
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return sorted(names, key=fsencode)
    return sorted(names)


def quoted(names: Iterable[str]) -> str:
    """List some names for a message, the first few if there are many."""
    return _some([repr(shortened(name)) for name in names])


def with_counts(counts: Mapping[str, int]) -> str:
    """List class names with their numbers of images for a message."""
    return _some([f"{shortened(name)!r} ({counted(n, 'image')})" for name, n in counts.items()])


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
