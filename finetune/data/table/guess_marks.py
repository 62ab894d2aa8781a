"""Columns of marks for one class each: 0 and 1, −1 and 1, 1 and blanks; mixed ones are asked about."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from finetune.choices import Uncertain
from finetune.data.table.columns import Columns, as_yaml
from finetune.data.table.labels import BLANK, MINUS, NO, YES, are_marks, mark_of, meaning_of_marks
from finetune.data.table.reader import Table
from finetune.errors import DataError
from finetune.text import quoted

_ALL_MARKS = frozenset((*YES, *NO, *MINUS, *BLANK))


def label_marks(table: Table, positions: Sequence[int], uncertain: Uncertain) -> list[int]:
    """Return the columns of 0 and 1, of -1 and 1, or of 1 and blanks, if two of them or more hold both.

    With an answer to what -1 and blanks mean beside 0 and 1, those of all of these. Columns of yes and no may
    answer different questions: they count if each row has one yes.
    """
    for no in (NO, MINUS, BLANK) if uncertain == "stop" else (NO + MINUS + BLANK,):
        marks = [n for n in positions if are_marks(table.column(n), no)]
        if sum(len(set(map(mark_of, table.column(n)))) > 1 for n in marks) > 1:
            rows = [[mark_of(row[n]) for n in marks] for row in table.rows]
            asked = any("yes" in row or "no" in row for row in rows)
            return [] if asked and not all(sum(m in YES for m in row) == 1 for row in rows) else marks
    return []


def uncertain_marks(table: Table, positions: Sequence[int], marks: Sequence[int]) -> list[int]:
    """Return the columns of 0 and 1 with -1 or blanks in some; none where plain `marks` are as many."""
    texts = {n: set(map(mark_of, table.column(n))) for n in positions}
    found = [n for n, held in texts.items() if held & {*YES} and len(held) > 1 and held <= _ALL_MARKS]
    unsaid = any(texts[n] & {*MINUS, *BLANK} for n in found)
    return found if unsaid and len(found) > max(1, len(marks)) else []


def refuse_uncertain(table: Table, found: Sequence[int], others: Sequence[int]) -> NoReturn:
    """Refuse columns of 0, 1, -1 and blanks, of which it is not said what the last two mean.

    `others` are columns that may hold the label as well.

    Raises:
        DataError: always.
    """
    columns = f"[{', '.join(as_yaml(table.header[n]) for n in found)}]"
    also = "".join(f"\ndata.columns.label: {as_yaml(table.header[n])}" for n in others[:8])
    raise DataError(
        f"{table}: columns {quoted(table.header[n] for n in found)} hold -1 or blanks beside 0 and 1"
        f"{f', and {quoted(table.header[n] for n in others)} may hold the label as well' if others else ''}. "
        f"What is the label?\ndata.columns.label: {columns}\n"
        f"  with data.uncertain: absent to read -1 and blanks as 0, or present to read -1 as 1{also}"
    )


def same_parts(one: Sequence[str], other: Sequence[str]) -> bool:
    """Tell whether two columns divide the rows in the same way."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


def is_one_of(table: Table, marks: Sequence[int], texts: Sequence[int]) -> bool:
    """Tell whether columns of 0 and 1 only repeat the one of texts."""
    if len(texts) != 1:
        return False
    where = [str([mark_of(row[n]) in YES for n in marks]) for row in table.rows]
    return same_parts(table.column(texts[0]), where)


def one_hot(table: Table, columns: Columns, marks: Sequence[int]) -> tuple[Columns, list[str]]:
    """Return the columns of 0 and 1 as those of classes, with one class an image if each row has one 1."""
    yes, _ = meaning_of_marks([table.column(n) for n in marks], columns.uncertain)
    numbers = {table.header[n]: sum(mark_of(cell) in yes for cell in table.column(n)) for n in marks}
    names = tuple(sorted((name for name, number in numbers.items() if number), key=str.encode))
    if len(names) < 2 or not all(names):
        return columns, []
    single = all(sum(mark_of(row[n]) in yes for n in marks) == 1 for row in table.rows)
    empty = [name for name, number in numbers.items() if not number]
    lines = ["one 1 in each row: one class an image" if single else "several classes an image, or none"]
    lines += [f"no row has {quoted(empty)}"] if empty else []
    return replace(columns, label=names, found=(*columns.found, "label"), one_class=single), lines
