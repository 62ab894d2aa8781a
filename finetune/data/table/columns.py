"""Which column of a table holds what: by the name that the config gives, or by the usual names."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from finetune.choices import AUTO_ENCODING, Kind, Uncertain
from finetune.data.table.reader import Table
from finetune.data.table.usual_names import ROLES, Role, plain_name
from finetune.errors import ConfigError, DataError
from finetune.text import printable, shortened


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
    whole_cells: bool = False
    """whether it was said that a cell is one class, however it looks"""
    uncertain: Uncertain = "stop"
    """what blanks and −1 mean in columns of 0 and 1"""
    encoding: str = AUTO_ENCODING
    """of the text of the table"""
    one_class: bool = False
    """whether columns of 0 and 1 hold exactly one 1 in each row, and so one class"""
    found: tuple[Role, ...] = ()
    """what was not named but found by what its cells hold, and may be called otherwise in another table"""

    @property
    def multilabel(self) -> bool:
        """Tell whether an image may have several classes, or none."""
        return (isinstance(self.label, tuple) and not self.one_class) or self.label_separator is not None

    @property
    def named(self) -> "Columns":
        """The same without what was found by what cells hold."""
        unnamed = dict.fromkeys(self.found)
        return replace(self, **unnamed, one_class=False, found=())  # type: ignore[arg-type]

    def there(self, header: Sequence[str]) -> "Columns":
        """Return the same for another table: without columns that it has not, which are found anew.

        Columns of several classes stay: what the model answers depends on them.
        """
        found = self if self._has_label(header) or "label" not in self.found else self.named
        image = found.image if found.image in header else None
        label = found.label if isinstance(found.label, tuple) or found.label in header else None
        split = None if "split" in found.found and found.split not in header else found.split
        return replace(found, image=image, label=label, split=split)

    def _has_label(self, header: Sequence[str]) -> bool:
        return {*self.label} <= {*header} if isinstance(self.label, tuple) else self.label in header


USUAL_COLUMNS = Columns()
"""No column is named; all are found by their usual names."""


_CONTENT: Mapping[Role, str] = {
    "image": ", or a column whose cells name files in its folder or in data.image_folder",
    "label": ", or a column with few different texts, each in two rows or more",
}
"""by what else a column is found"""


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
    found = [position for position, name in enumerate(table.header) if plain_name(name) in ROLES[role]]
    exact = [position for position in found if plain_name(table.header[position]) == role]
    if len(found) == 1 or len(exact) == 1:
        return (exact or found)[0]
    if found:
        candidates = " and ".join(repr(shortened(table.header[position])) for position in found)
        raise DataError(
            f"{table}: columns {candidates} may both hold the {role}; name one: data.columns.{role}."
        )
    if required:
        raise DataError(
            f"{table} has no column for the {role}: its column names are {_listed(table.header)}; expected "
            f"one of {', '.join(ROLES[role])}{_CONTENT.get(role, '')}.\nRename one, or name it in "
            f"data.columns.{role}."
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
        f"data.columns.{role}: {table} has no column {shortened(name)!r}; it has "
        f"{_listed(table.header)}{hint}"
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


_PLAIN_YAML = re.compile(r"[A-Za-z_/][\w ./-]*\w|[A-Za-z_]")

# fmt: off
GROUP_WORDS = frozenset((
    "patient", "subject", "person", "participant", "individual", "case", "animal", "specimen", "donor",
    "plant", "tree", "plot", "field", "session", "visit", "study", "serie", "video", "sequence", "clip",
    "scene", "slide", "camera", "product",
))
_PART_WORDS = GROUP_WORDS | frozenset((
    "image", "img", "picture", "pic", "photo", "part", "batch", "chunk", "shard", "frame", "file", "folder",
    "dir", "archive", "disc", "disk", "volume", "upload", "scan",
))
# fmt: on
"""words in names of folders that differ in a number alone: what was divided, not what it is divided into"""


def numbered_alike(names: Iterable[str]) -> list[str]:
    """Return names such as `images_001` and `images_002`, which are those of parts of one whole."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        if (stem := re.sub(r"\d+", "0", name)) != name:
            alike[stem].append(name)
    return next((n for stem, n in alike.items() if len(n) > 1 and _PART_WORDS & words_of(stem)), [])


def words_of(name: str) -> set[str]:
    """Return the words in the name of a column, in the singular: of `patientIDs` `patient` and `id`."""
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    found = {word.removesuffix("s") for word in words}
    return found | {"case"} if {"lesion", "id"} <= found else found  # but a finding may be called so


def guess_group(table: Table, names: Iterable[str]) -> str | None:
    """Return the column that says what images probably have in common, such as a patient.

    By its name, and by its values: each stands in two rows or more on average, and there are enough to split.
    """
    for name in names:
        if not GROUP_WORDS & words_of(name):
            continue
        cells = [cell for cell in table.column(table.header.index(name)) if cell.strip()]
        if 3 <= len(set(cells)) <= len(cells) / 2:
            return name
    return None


def unused_columns(table: Table, used: set[int]) -> tuple[str, ...]:
    """Return the names of the columns that nothing is made of."""
    return tuple(name for position, name in enumerate(table.header) if position not in used)


def _listed(names: tuple[str, ...]) -> str:
    return printable(
        ", ".join(repr(shortened(name, 60)) for name in names[:12]) + (", …" if len(names) > 12 else "")
    )


def as_yaml(name: str) -> str:
    """Return a name as it stands in a line of YAML, in quotes where it would be read as something else."""
    word = name.lower() in ("yes", "no", "true", "false", "null", "on", "off", "y", "n")
    return name if _PLAIN_YAML.fullmatch(name) and not word else json.dumps(name, ensure_ascii=False)
