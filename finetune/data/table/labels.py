"""The labels of a row that may have several: one cell of names, or a cell of 0 and 1 for each class."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finetune.choices import Uncertain
from finetune.data.table.columns import Columns, find_column, find_named
from finetune.data.table.reader import Table
from finetune.text import counted

_SEPARATORS = (";", "|", ",", "/", "+", "&", " ")
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
"""what a cell says of the class of its column, as `mark_of` reads it"""
MINUS = ("-1", "-1.0")
"""what stands for 0 in lists of attributes, where nothing is 0; beside 0 it says something else"""
BLANK = ("",)
"""what stands for 0 where nothing but 1 is written; beside 0 it says something else"""


@dataclass(frozen=True)
class LabelCells:
    """Where the labels of a row stand, and how they are written."""

    positions: tuple[int, ...]
    """of their columns"""
    class_names: tuple[str, ...] = ()
    """the class of each column; empty where one cell holds the names"""
    separator: str = ""
    """what stands between names in the cell"""
    exactly_one: bool = False
    """whether one of the columns is 1 in each row"""
    no: tuple[str, ...] = NO
    """what says that an image has not the class of a column"""
    yes: tuple[str, ...] = YES
    """what says that it has"""

    def fault(self, cells: Sequence[str]) -> str | None:
        """Say what is wrong with the labels of a row, if anything is."""
        if self.class_names:
            return self._fault_of_marks(cells)
        cell, names = cells[self.positions[0]], self.names(cells)
        if not all(names):
            return f"the label {cell!r} has an empty name between its separators"
        repeated = [name for name, number in Counter(names).items() if number > 1]
        return f"the label {cell!r} has {repeated[0]!r} twice" if repeated else None

    def names(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Return the classes that a row names; blanks around them are no part of them."""
        if self.class_names:
            pairs = zip(self.class_names, self.positions, strict=True)
            return tuple(name for name, position in pairs if mark_of(cells[position]) in self.yes)
        cell = cells[self.positions[0]]
        if not cell.strip():
            return ()
        if not self.separator.strip():  # any number of blanks separates as one does
            return tuple(cell.split())
        return tuple(name.strip() for name in cell.split(self.separator))

    def note(self, rows: Sequence[Sequence[str]]) -> str | None:
        """Say how many blanks and −1 were read as 0 or 1; None where there are none beside 0 and 1."""
        if not self.class_names or self.no in (NO, MINUS):
            return None
        marks = Counter(mark_of(row[position]) for row in rows for position in self.positions)
        blanks, minus = marks[""], sum(marks[mark] for mark in MINUS)
        lines = [f"{counted(blanks, 'blank')} read as 0"] if blanks else []
        lines += [f"{minus:,} of -1 read as {int('-1' in self.yes)}"] if minus else []
        return ", ".join(lines) or None

    def _fault_of_marks(self, cells: Sequence[str]) -> str | None:
        for name, position in zip(self.class_names, self.positions, strict=True):
            if (mark := mark_of(cells[position])) not in self.yes + self.no:
                or_else = ", or an answer in data.uncertain" if mark in BLANK + MINUS else ""
                return f"column {name!r} holds {cells[position]!r}; expected 1 or 0{or_else}"
        number = len(self.names(cells))
        if self.exactly_one and number != 1:
            return f"{number} of the columns of classes are 1; expected one, as in the other rows"
        return None


def find_label_cells(table: Table, columns: Columns) -> LabelCells:
    """Find out where a table holds the labels of images that may have several.

    Raises:
        ConfigError: a column that was named is not there.
        DataError: there is no column for the label, or several may be.
    """
    if isinstance(columns.label, tuple):
        positions = tuple(find_named(table, "label", name) for name in columns.label)
        yes, no = meaning_of_marks([table.column(position) for position in positions], columns.uncertain)
        return LabelCells(positions, columns.label, exactly_one=columns.one_class, no=no, yes=yes)
    position = find_column(table, "label", columns, required=True)
    assert position is not None
    return LabelCells((position,), separator=columns.label_separator or "")


def meaning_of_marks(
    marks: Sequence[Sequence[str]], uncertain: Uncertain
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what says in columns of marks that an image has their class, and what that it has not."""
    for no in (MINUS, BLANK):
        if all(are_marks(cells, no) for cells in marks):
            return YES, no
    if uncertain == "absent":
        return YES, NO + BLANK + MINUS
    return (YES + MINUS, NO + BLANK) if uncertain == "present" else (YES, NO)


def guess_separator(cells: Iterable[str]) -> tuple[str, str] | None:
    """Return what seems to stand between names in some cells, and one of these; None if nothing does.

    It does where all parts of a cell are cells of their own elsewhere: `cat;dog` beside `cat` and `dog`.
    """
    known = {cell.strip() for cell in cells}
    for separator in _SEPARATORS:
        for cell in sorted(known):
            if separator in cell and {part.strip() for part in cell.split(separator)} <= known:
                return separator, cell
    return None


def joint_labels(texts: Iterable[str]) -> tuple[str, str, int] | None:
    """Return what stands between names in texts that are put together from fewer names; None if nothing does.

    With an example, and the number of names. It does where the texts hold different numbers of names, and
    there are fewer names than texts: `haze primary`, `clear primary water`, `haze water`, ….
    """
    known = {text.strip() for text in texts}
    for separator in _SEPARATORS:
        cells = {text: text.split() if separator == " " else text.split(separator) for text in known}
        names = {name.strip() for parts in cells.values() for name in parts}
        if all(names) and len(names) < len(known) and len({len(parts) for parts in cells.values()}) > 1:
            return separator, max(sorted(known), key=lambda text: len(cells[text]) == 2), len(names)
    return None


def are_marks(cells: Iterable[str], no: Sequence[str] = NO) -> bool:
    """Tell whether cells say of one class each whether an image has it."""
    return {mark_of(cell) for cell in cells} <= {*YES, *no}


def mark_of(cell: str) -> str:
    """Return a cell of 0 or 1 without what makes no difference to it."""
    return cell.strip().lower()
