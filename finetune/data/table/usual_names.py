"""What columns are usually called, by which they are found without being named."""

from collections.abc import Iterable, Mapping
from typing import Literal

Role = Literal["image", "label", "split", "group"]

ROLES: Mapping[Role, tuple[str, ...]] = {
    "image": ("image", "img", "image_path", "file", "filename", "file_name", "filepath", "file_path", "path"),
    "label": ("label", "class", "class_name", "target", "category"),
    "split": ("split", "subset"),
    "group": ("group", "group_id"),
}
"""What a column may be called that is found without being named: in any case, `-` and blanks as `_`."""

_ALL = frozenset(name for names in ROLES.values() for name in names)


def plain_name(name: str) -> str:
    """Return the name of a column as usual names are written."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def has_usual_name(names: Iterable[str]) -> bool:
    """Tell whether one of some cells is the usual name of a column."""
    return any(plain_name(name) in _ALL for name in names)
