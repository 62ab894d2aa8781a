"""Metadata beside an image, from a cell of a table or of the command line to the numbers that a head takes.

Every cell takes one route: `metadata_row` puts the cells of an image into the order of the columns,
`Metadata.encode` turns the row into positions and numbers, and `stack_metadata` turns those of N images into
tensors; `metadata_tensors` does the last two for images at hand.

A category becomes its position in a table of vectors (an embedding), where 0 stands for a cell that is empty
or holds what training has not seen. A number is standardised by the mean and the standard deviation of the
training images, and comes with a flag that says whether its cell is empty.

torch is imported where tensors are made: reading a table (`init`) works without it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from finetune.choices import Kind

if TYPE_CHECKING:
    from torch import Tensor

Row = tuple[str, ...]
"""Cells of one image in the order of the columns, without blanks around them, empty where one is missing."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_FEW = 20  # whole numbers of no more different values are codes; the same as in fastai's `cont_cat_split`
_LARGEST = 1e30  # its square still is a number


class EncodedRow(NamedTuple):
    """What the cells of one image mean."""

    categories: list[int]
    """(K,) the position of each category, 0 where it is missing or training has not seen it"""
    numbers: list[float]
    """(2M,) the standardised values, 0 where one is missing; then the flags, 1 where one is missing"""


@dataclass(frozen=True)
class CategoryColumn:
    """A column whose cells are names."""

    name: str
    categories: tuple[str, ...]
    """those of the training images; the first has position 1"""

    @property
    def size(self) -> int:
        """Rows of its embedding: one for each category, and one for what is missing or unseen."""
        return len(self.categories) + 1

    def __str__(self) -> str:
        return f"{self.name}: {len(self.categories):,} categories"


@dataclass(frozen=True)
class NumberColumn:
    """A column whose cells are numbers."""

    name: str
    mean: float
    """of the training images that have one"""
    std: float
    """their standard deviation; 0 if all are equal"""

    def __str__(self) -> str:
        return f"{self.name}: a number, {self.mean:.4g} ± {self.std:.3g}"


@dataclass(frozen=True)
class Metadata:
    """What each column means; the cells of an image are in the order of the columns."""

    columns: tuple[CategoryColumn | NumberColumn, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns."""
        return tuple(column.name for column in self.columns)

    @property
    def categories(self) -> tuple[CategoryColumn, ...]:
        """The columns of categories."""
        return tuple(column for column in self.columns if isinstance(column, CategoryColumn))

    @property
    def numbers(self) -> tuple[NumberColumn, ...]:
        """The columns of numbers."""
        return tuple(column for column in self.columns if isinstance(column, NumberColumn))

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each column, by name."""
        return {c.name: "category" if isinstance(c, CategoryColumn) else "number" for c in self.columns}

    def encode(self, row: Row) -> EncodedRow:
        """Return what the cells of one image mean."""
        categories: list[int] = []
        values: list[float | None] = []
        for column, positions, cell in zip(self.columns, self.positions, row, strict=True):
            if isinstance(column, CategoryColumn):
                categories.append(positions.get(cell, 0))
            else:
                values.append(_standardised(column, cell))
        return EncodedRow(categories, [v or 0.0 for v in values] + [float(v is None) for v in values])

    @cached_property
    def positions(self) -> list[dict[str, int]]:
        """The position of each category, column by column; of numbers there are none."""
        names = [column.categories if isinstance(column, CategoryColumn) else () for column in self.columns]
        return [{name: position for position, name in enumerate(of, start=1)} for of in names]

    def unseen(self, rows: Sequence[Row]) -> dict[str, dict[str, int]]:
        """Count the categories that training has not seen, by column; empty cells are not among them."""
        found: dict[str, dict[str, int]] = {}
        for position, column in enumerate(self.columns):
            if isinstance(column, CategoryColumn):
                known, counts = set(column.categories), dict[str, int]()
                for cells in rows:
                    cell = cells[position]
                    if cell and cell not in known:
                        counts[cell] = counts.get(cell, 0) + 1
                if counts:
                    found[column.name] = counts
        return found

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the columns as plain JSON values."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def from_dict(cls, columns: Sequence[Mapping[str, Any]]) -> Self:
        """Read what `to_dict` returned."""
        return cls(
            tuple(
                CategoryColumn(str(fields["name"]), tuple(map(str, fields["categories"])))
                if "categories" in fields
                else NumberColumn(str(fields["name"]), float(fields["mean"]), float(fields["std"]))
                for fields in columns
            )
        )


def metadata_row(names: Iterable[str], cells: Mapping[str, str]) -> Row:
    """Put the cells of an image, by column name, into the order of the columns."""
    return tuple(cells.get(name, "").strip() for name in names)


def first_non_number(kinds: Mapping[str, Kind], row: Row) -> tuple[str, str] | None:
    """Return name and cell of a column of numbers that holds something else; None if there is none."""
    for (name, kind), cell in zip(kinds.items(), row, strict=True):
        if kind == "number" and cell and not is_number(cell):
            return name, cell
    return None


def stack_metadata(encoded: Iterable[EncodedRow | None]) -> "tuple[Tensor, ...]":
    """Return categories (N, K), int64, and numbers (N, 2M), float32, of N images; or nothing."""
    import torch

    rows = [row for row in encoded if row is not None]
    if not rows:
        return ()
    categories, numbers = zip(*rows, strict=True)
    return torch.tensor(categories, dtype=torch.int64), torch.tensor(numbers, dtype=torch.float32)


def metadata_tensors(metadata: Metadata | None, rows: Iterable[Row]) -> "tuple[Tensor, ...]":
    """Return what a head takes beside the features of some images; nothing for a model without metadata."""
    return () if metadata is None else stack_metadata(map(metadata.encode, rows))


def fit_metadata(kinds: Mapping[str, Kind], rows: Sequence[Row]) -> Metadata:
    """Learn from the cells of the training images what the columns hold.

    `auto` reads a column as numbers if all its cells are, and if some are no whole numbers or more than 20
    are different, the rule of fastai's `cont_cat_split`.

    Args:
        kinds: what the columns are, by name.
        rows: the cells of each training image, in the order of `kinds`, empty where they are missing.
    """
    columns: list[CategoryColumn | NumberColumn] = []
    for position, (name, kind) in enumerate(kinds.items()):
        filled = [cells[position] for cells in rows if cells[position]]
        if kind == "number" or (kind == "auto" and _look_like_numbers(filled)):
            columns.append(NumberColumn(name, *_mean_and_std([float(cell) for cell in filled])))
        else:
            columns.append(CategoryColumn(name, tuple(sorted(set(filled), key=lambda cell: cell.encode()))))
    return Metadata(tuple(columns))


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number in decimal notation that can be computed with."""
    return _NUMBER.fullmatch(cell) is not None and abs(float(cell)) < _LARGEST


def doubts(metadata: Metadata, rows: Sequence[Row]) -> Iterator[str]:
    """Return what is odd about the columns of the training images, a line each."""
    for position, column in enumerate(metadata.columns):
        filled = [cells[position] for cells in rows if cells[position]]
        if len(set(filled)) < 2:
            what = f"is always {filled[0]!r}" if filled else "is empty"
            yield f"metadata column {column.name!r} {what} in training: there is nothing to learn from it"
        elif isinstance(column, CategoryColumn):
            yield from _doubts_about_categories(column, filled)


def _doubts_about_categories(column: CategoryColumn, filled: Sequence[str]) -> Iterator[str]:
    numbers = sum(map(is_number, column.categories))
    others = [category for category in column.categories if not is_number(category)]
    if others and numbers > _FEW and numbers > 0.9 * len(column.categories):
        yield (
            f"metadata column {column.name!r} holds categories, because of cells such as "
            f"{others[0]!r}; leave these empty if it holds numbers"
        )
    if len(column.categories) > max(_FEW, len(filled) / 2):
        yield (
            f"metadata column {column.name!r} has {len(column.categories):,} categories in {len(filled):,} "
            "rows: hardly any can be learned, and those of new images will be others"
        )
    folded: dict[str, str] = {}
    for category in column.categories:
        other = folded.setdefault(category.casefold(), category)
        if other != category:
            yield f"metadata column {column.name!r} has {other!r} and {category!r}, which differ in case only"
            return


def _look_like_numbers(filled: Sequence[str]) -> bool:
    if not filled or not all(map(is_number, filled)):
        return False
    return not all(map(_WHOLE.fullmatch, filled)) or len(set(filled)) > _FEW


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 0.0
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _standardised(column: NumberColumn, cell: str) -> float | None:
    """Return the distance from the mean in standard deviations; None where the cell is empty."""
    if not cell:
        return None
    return (float(cell) - column.mean) / column.std if column.std else 0.0
