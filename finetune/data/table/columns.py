"""Which column of a table holds what: by the name that the config gives, or by the usual names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from finetune.choices import Kind
from finetune.data.table.reader import Table
from finetune.errors import ConfigError, DataError
from finetune.text import printable

Role = Literal["image", "label", "split", "group"]

ROLES: Mapping[Role, tuple[str, ...]] = {
    "image": ("image", "img", "image_path", "file", "filename", "file_name", "filepath", "file_path", "path"),
    "label": ("label", "class", "class_name", "target", "category"),
    "split": ("split", "subset"),
    "group": ("group", "group_id"),
}
"""What a column may be called that is found without being named: in any case, `-` and blanks as `_`."""


@dataclass(frozen=True)
class Columns:
    """The names of columns that were given; None for one that is found by its usual names."""

    image: str | None = None
    label: str | tuple[str, ...] | None = None
    """a tuple is one column for each class, of 0 and 1"""
    split: str | None = None
    group: str | None = None
    metadata: Mapping[str, Kind] = field(default_factory=dict)
    """the columns of metadata, and of which kind each is"""
    label_separator: str | None = None
    """what stands between the names of classes in one cell; None where a cell is one class"""

    @property
    def multilabel(self) -> bool:
        """Tell whether an image may have several classes, or none."""
        return isinstance(self.label, tuple) or self.label_separator is not None


USUAL_COLUMNS = Columns()
"""No column is named; all are found by their usual names."""


def find_column(table: Table, role: Role, columns: Columns, *, required: bool) -> int | None:
    """Return the position of the one column that holds images, labels, splits or groups.

    None where none was named, none is called by a usual name, and none is required.

    Raises:
        ConfigError: the column that was named is not there.
        DataError: none is called by a usual name though one is required, or several are.
    """
    named: str | None = getattr(columns, role)
    if named is not None:
        return find_named(table, role, named)
    found = [position for position, name in enumerate(table.header) if _plain(name) in ROLES[role]]
    exact = [position for position in found if _plain(table.header[position]) == role]
    if len(found) == 1 or len(exact) == 1:
        return (exact or found)[0]
    if found:
        candidates = " and ".join(repr(table.header[position]) for position in found)
        raise DataError(
            f"{table}: columns {candidates} may both hold the {role}; name one: data.columns.{role}."
        )
    if required:
        raise DataError(
            f"{table} has no column for the {role}: its column names are {_listed(table.header)}; expected "
            f"one of {', '.join(ROLES[role])}.\nRename one, or name it in data.columns.{role}."
        )
    return None


def find_named(table: Table, role: str, name: str) -> int:
    """Return the position of a column that the config names.

    Raises:
        ConfigError: it is not there.
    """
    if name in table.header:
        return table.header.index(name)
    near = get_close_matches(name, table.header, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(
        f"data.columns.{role}: {table} has no column {name!r}; it has {_listed(table.header)}{hint}"
    )


def find_metadata(table: Table, columns: Columns, used: Iterable[tuple[Role, int]]) -> dict[str, int]:
    """Return the positions of the metadata columns by name.

    Raises:
        ConfigError: one is not there, or says what is to be found out.
    """
    positions = {name: find_named(table, "metadata", name) for name in columns.metadata}
    for role, position in used:
        if role in ("image", "label", "split") and position in positions.values():
            raise ConfigError(
                f"data.columns.metadata: {table.header[position]!r} is the column for the {role} of {table}; "
                "leave it out, or the model would learn from what it is to predict."
            )
    return positions


# fmt: off
_GROUP_WORDS = frozenset((
    "patient", "subject", "person", "participant", "individual", "case", "animal", "specimen", "donor",
    "plant", "tree", "plot", "field", "session", "visit", "study", "serie", "video", "sequence", "clip",
    "scene", "slide", "camera", "product",
))
# fmt: on


def guess_group(table: Table, names: Iterable[str]) -> str | None:
    """Return the column that says what images probably have in common, such as a patient.

    By its name, and by its values: each stands in two rows or more on average, and there are enough to split.
    """
    for name in names:
        words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
        if not _GROUP_WORDS & {word.removesuffix("s") for word in words}:
            continue
        cells = [cell for cell in table.column(table.header.index(name)) if cell.strip()]
        if 3 <= len(set(cells)) <= len(cells) / 2:
            return name
    return None


def unused_columns(table: Table, used: set[int]) -> tuple[str, ...]:
    """Return the names of the columns that nothing is made of."""
    return tuple(name for position, name in enumerate(table.header) if position not in used)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _listed(names: tuple[str, ...]) -> str:
    return printable(", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else ""))
