"""Refuse classes that a person would read as one and a program as two."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from finetune.choices import CaseVariants
from finetune.errors import DataError
from finetune.text import printable


def check_class_names(
    names: Iterable[str],
    place: Path,
    case_variants: CaseVariants,
    *,
    kind: str = "class folder",
    remedy: str = "rename it",
) -> None:
    """Check the names of all classes of a data set.

    Args:
        names: the names, which may repeat.
        place: the folder or table that they are from.
        case_variants: whether names may differ in case only.
        kind: what a message calls that which has the name.
        remedy: what to do about a name that cannot be.

    Raises:
        DataError: a name with blanks around it, one that is not UTF-8, or two that look alike.
    """
    ordered = sorted(set(names), key=os.fsencode)
    where = printable(str(place))
    for name in ordered:
        if name != name.strip():
            raise DataError(f"{where}: {kind} {name!r} begins or ends with a blank; {remedy}.")
        if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(f"{where}: {kind} {printable(name)!r} is not UTF-8; {remedy}.")
    for alike in _groups(ordered, lambda name: unicodedata.normalize("NFC", name)):
        shown = " and ".join(f"{name!r} ({_code_points(name)})" for name in alike)
        raise DataError(f"{where}: {_plural(kind)} {shown} are the same text in different bytes; merge them.")
    if case_variants == "stop":
        for alike in _groups(ordered, lambda name: unicodedata.normalize("NFC", name).casefold()):
            shown = " and ".join(map(repr, alike))
            raise DataError(
                f"{where}: {_plural(kind)} {shown} differ only in case; merge them, or set "
                "data.case_variants: allow if they are two classes."
            )


def _groups(names: list[str], key: Callable[[str], str]) -> list[list[str]]:
    """Gather the names that are equal under `key`, where there are several."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _code_points(name: str) -> str:
    """Spell out the characters beyond ASCII, which is where the names differ."""
    return " ".join(f"U+{ord(character):04X}" for character in name if not character.isascii())


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"
