"""Find the columns for images and labels by what their cells hold, where no name says which they are."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from finetune.choices import split_of
from finetune.data.table.columns import GROUP_WORDS, Columns, as_yaml, find_column, words_of
from finetune.data.table.files import ImageFiles
from finetune.data.table.foreign_images import refuse_foreign_images
from finetune.data.table.guess_marks import (
    is_one_of,
    label_marks,
    one_hot,
    refuse_uncertain,
    same_parts,
    uncertain_marks,
)
from finetune.data.table.json_objects import LIST_SEPARATOR
from finetune.data.table.labels import guess_separator
from finetune.data.table.path_names import looks_like_image
from finetune.data.table.reader import Table
from finetune.data.table.usual_names import ROLES, Role, plain_name
from finetune.errors import DataError
from finetune.text import counted, printable, quoted, shortened

_LOOKED_AT = 200
"""different cells of a column by which it is told whether they name files"""

# fmt: off
_BOOKKEEPING = GROUP_WORDS | frozenset((
    "rater", "reader", "reviewer", "labeler", "labeller", "annotator", "annotation", "annotated", "user",
    "worker", "created", "updated", "modified", "time",
    "date", "timestamp", "duration", "lead", "width", "height", "size", "index", "fold", "version",
))
# fmt: on
"""words in the names of columns that say how an image came about rather than what it shows"""
_NEVER = frozenset(("partition", "fold"))
"""words in the names of columns that say what an image is for, and never what it shows"""
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}|\d\d?:\d\d(:\d\d)?")
_NUMBER = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?")
_FRACTION = re.compile(r"[.,]\d*[1-9]")


@dataclass(frozen=True)
class GuessedColumns:
    """Columns, with those that were found by what they hold."""

    columns: Columns
    notes: tuple[str, ...] = ()
    """how they were found"""


def guess_columns(
    table: Table, files: ImageFiles, columns: Columns, wanted: Sequence[Role]
) -> GuessedColumns:
    """Return columns with names for those of `wanted` that neither the config nor a usual name tells.

    Raises:
        DataError: several may be meant.
    """
    notes: list[str] = []
    if "image" in wanted and columns.image is None:
        position = _guess_image(table, files, columns)
        if position is not None:
            columns = _found(columns, "image", table.header[position])
    if "label" in wanted:
        columns = _guess_split(table, columns)
        if find_label(table, columns) is None:
            columns, lines = _guess_label(table, columns)
            notes += lines
        columns = _with_lists(table, columns)
    return GuessedColumns(columns, tuple(notes))


def find_label(table: Table, columns: Columns) -> str | tuple[str, ...] | None:
    """Return the column of labels, or the columns, that are named or have a usual name."""
    if isinstance(columns.label, tuple):
        return columns.label
    position = find_column(table, "label", columns, required=False)
    return None if position is None else table.header[position]


def _found(columns: Columns, role: Role, name: str | tuple[str, ...]) -> Columns:
    return replace(columns, **{role: name}, found=(*columns.found, role))  # type: ignore[arg-type]


def _with_lists(table: Table, columns: Columns) -> Columns:
    """Return the columns with a separator where the cells of the label were lists."""
    if columns.label_separator is not None or isinstance(columns.label, tuple):
        return columns
    label = find_label(table, columns)
    if not isinstance(label, str) or label not in table.lists:
        return columns
    cells = table.column(table.header.index(label))
    single = all(cell and LIST_SEPARATOR not in cell for cell in cells)
    return columns if single else replace(columns, label_separator=LIST_SEPARATOR)


# Images


def _guess_image(table: Table, files: ImageFiles, columns: Columns) -> int | None:
    """Return the column whose cells name files; None where its name tells which it is, or nothing does."""
    usual = [n for n, name in enumerate(table.header) if plain_name(name) in ROLES["image"]]
    exact = [n for n in usual if plain_name(table.header[n]) == "image"]
    chosen = exact if len(exact) == 1 else usual
    if len(chosen) == 1 and (files.root is None or _names_files(table, chosen[0], files, often=True)):
        return None
    others = [n for n in _free(table, columns, (), but=("image",)) if n not in chosen]
    among = chosen if len(chosen) > 1 else others
    naming = [n for n in among if _names_files(table, n, files)]
    naming = naming or [n for n in among if _names_files(table, n, files, often=True)]
    if naming and len(chosen) == 1:
        naming = [*chosen, *naming]  # the one with the name holds none of the images
    if not naming and not chosen:
        naming = [n for n in others if _share(table, n, looks_like_image) >= 0.5]
    if len(naming) > 1 and not _same_files(table, naming, files):
        raise _doubt(
            table, "image", [_described(table, n) for n in naming], [table.header[n] for n in naming]
        )
    if not naming and not chosen:
        refuse_foreign_images(table, files)
    return naming[0] if naming else None


def _names_files(table: Table, position: int, files: ImageFiles, *, often: bool = False) -> bool:
    """Tell whether half of the cells of a column or more name files, each in hardly more than one row.

    `often` allows more rows, as of several people who have looked at each image.
    """
    cells = table.column(position)
    distinct = sorted(set(cells))
    if 2 * len(distinct) < len(cells) and not often:
        return False
    step = max(1, len(distinct) // _LOOKED_AT)
    return files.locate(distinct[::step]).share >= 0.5


def _same_files(table: Table, positions: Sequence[int], files: ImageFiles) -> bool:
    """Tell whether columns name the same file in each row."""
    located = [files.locate(table.column(n)) for n in positions]
    return all(
        len({files.name_of(row[n], found) for n, found in zip(positions, located, strict=True)}) == 1
        for row in table.rows
    )


def _share(table: Table, position: int, is_so: Callable[[str], bool]) -> float:
    cells = table.column(position)
    return sum(map(is_so, cells)) / len(cells)


# Splits


def _guess_split(table: Table, columns: Columns) -> Columns:
    """Return the columns with the one whose cells are all names of splits, where there is one.

    Raises:
        DataError: there are several.
    """
    if find_column(table, "split", columns, required=False) is not None:
        return columns
    naming = [n for n in _free(table, columns, (), but=()) if _names_splits(table.column(n))]
    if len(naming) > 1:
        raise _doubt(
            table, "split", [_described(table, n) for n in naming], [table.header[n] for n in naming]
        )
    return _found(columns, "split", table.header[naming[0]]) if naming else columns


def _names_splits(cells: Sequence[str]) -> bool:
    splits = {split_of(cell) for cell in set(cells)}
    return "train" in splits and len(splits) > 1 and None not in splits


# Labels


def _guess_label(table: Table, columns: Columns) -> tuple[Columns, list[str]]:
    """Return the columns with the one that holds labels, or those of 0 and 1, and how it was found."""
    image = find_column(table, "image", columns, required=False)
    free = _free(table, columns, () if image is None else (image,), but=())
    named = words_of(table.path.stem) if not table.headed else set()
    free = [] if named & _NEVER else [n for n in free if not words_of(table.header[n]) & _NEVER]
    telling = [n for n in free if not words_of(table.header[n].split(".")[-1]) & _BOOKKEEPING]
    telling = telling if _candidates(table, telling) else free
    marked = [n for n in free if not words_of(table.header[n].split(".")[-1]) & (_BOOKKEEPING - GROUP_WORDS)]
    marks = label_marks(table, marked, columns.uncertain)  # classes may be called person, plant or animal
    several = len(marks) > 1
    if columns.uncertain == "stop" and (unsaid := uncertain_marks(table, marked, marks)):
        rest = [n for n in telling if n not in unsaid]
        refuse_uncertain(table, unsaid, _distinct(table, _candidates(table, rest)))
    texts = _distinct(table, [n for n in _candidates(table, telling) if not (several and n in marks)])
    if several and is_one_of(table, marks, texts):
        several = False
    if several and not texts:
        return one_hot(table, columns, marks)
    if len(texts) + several > 1:
        names = [table.header[n] for n in texts]
        listed = [_described(table, n) for n in texts]
        if several:
            names.append(f"[{', '.join(as_yaml(table.header[n]) for n in marks)}]")
            listed.append(f"those of 0 and 1, {quoted(table.header[n] for n in marks)}")
        raise _doubt(table, "label", listed, names)
    if not texts:
        return columns, []
    return _found(columns, "label", table.header[texts[0]]), []


def _candidates(table: Table, positions: Sequence[int]) -> list[int]:
    """Return the columns with few different texts, each in two rows or more; else the one that comes near."""
    counts = {n: Counter(cell.strip() for cell in table.column(n) if cell.strip()) for n in positions}
    counts = {n: count for n, count in counts.items() if len(count) > 1 and not _are_measures(count)}
    full = [n for n, count in counts.items() if count.total() == len(table.rows)]
    strict = [n for n in full or counts if min(counts[n].values()) > 1]
    near = [n for n in full or counts if 2 * len(counts[n]) <= counts[n].total()]
    if strict:  # and those of several names in a cell, some of which are together only once
        return sorted({*strict, *(n for n in near if n not in strict and guess_separator(counts[n]))})
    if near:
        return near
    only = len(positions) == 1
    return [n for n in full if len(counts[n]) < len(table.rows)] if only else []


def _are_measures(texts: Collection[str]) -> bool:
    """Tell whether texts are dates or times, or numbers of which some have a fraction."""
    if all(map(_DATE.fullmatch, texts)):
        return True
    return all(map(_NUMBER.fullmatch, texts)) and any(map(_FRACTION.search, texts))


def _distinct(table: Table, positions: Sequence[int]) -> list[int]:
    """Leave out columns that divide the rows as another does: of a number and a name for it, the number."""
    kept: list[int] = []
    for n in sorted(positions, key=lambda n: all(cell.strip().isdigit() for cell in table.column(n))):
        if not any(same_parts(table.column(n), table.column(other)) for other in kept):
            kept.append(n)
    return sorted(kept)


def _free(table: Table, columns: Columns, taken: Sequence[int], *, but: Sequence[Role]) -> list[int]:
    """Return the columns that are not taken, neither by name nor by a usual name but those of `but`."""
    usual = {name for role, names in ROLES.items() if role not in but for name in names}
    label = columns.label if isinstance(columns.label, tuple) else (columns.label,)
    named = {columns.image, *label, columns.split, columns.group, *columns.metadata}
    return [
        n
        for n, name in enumerate(table.header)
        if n not in taken and name not in named and plain_name(name) not in usual
    ]


def _described(table: Table, position: int) -> str:
    texts = sorted({cell.strip() for cell in table.column(position)})
    some = ", ".join(printable(shortened(text, 30)) for text in texts[:3])
    more = ", …" if len(texts) > 3 else ""
    return f"{shortened(table.header[position])!r} ({counted(len(texts), 'text')}: {some}{more})"


def _doubt(table: Table, role: Role, listed: Sequence[str], names: Sequence[str]) -> DataError:
    both = "both" if len(listed) == 2 else "all"
    keys = " or ".join(
        f"data.columns.{role}: {name if name.startswith('[') else as_yaml(name)}" for name in names[:8]
    )
    return DataError(f"{table}: columns {' and '.join(listed[:8])} may {both} hold the {role}; set {keys}.")
