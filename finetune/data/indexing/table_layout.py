"""Describe what a table of images was taken for. No torch here: `init` answers at once."""

from collections.abc import Sequence

from finetune.choices import SPLITS, Split
from finetune.data.data_layout import HERE, Layout, LeftOut
from finetune.data.table import Table, TableRows, find_column
from finetune.data.table.guess import find_label


def table_layout(table: Table, found: TableRows) -> Layout:
    """Return what a table was taken for."""
    image = find_column(table, "image", found.columns, required=True)
    unused = [LeftOut(f"column {name}", "not named in data.columns", 1) for name in found.unused]
    repeated = [LeftOut("rows", "say again what others say", found.repeated)] if found.repeated else []
    guessed = ("columns found by what they hold",) if found.columns.found else ()
    return Layout(
        "table",
        {split: _folders(table, found, split) for split in SPLITS if _rows_of(found, split)},
        image_column=None if image is None else table.header[image],
        label_column=find_label(table, found.columns),
        encoding=table.encoding,
        left_out=(*repeated, *unused),
        notes=(*guessed, *found.notes, *table.notes),
    )


def _rows_of(found: TableRows, split: Split) -> Sequence[int]:
    return [number for number, row in enumerate(found.rows) if (row.split or "train") == split]


def _folders(table: Table, found: TableRows, split: Split) -> tuple[str, ...]:
    """Return the folders whose tables have the rows of a split; the table's own if there is one table."""
    if not table.files:
        return (HERE,)
    named = {found.rows[number].name.split("/", 1)[0] for number in _rows_of(found, split)}
    return tuple(sorted(named))
