"""Describe what a table of images was taken for. No torch here: `init` answers at once."""

from collections.abc import Sequence

from finetune.choices import SPLITS
from finetune.data.data_layout import HERE, Layout, LeftOut
from finetune.data.table import Columns, ImageRow, Table, find_column


def table_layout(table: Table, columns: Columns, rows: Sequence[ImageRow], unused: Sequence[str]) -> Layout:
    """Return what a table was taken for."""
    image = find_column(table, "image", columns, required=True)
    label = columns.label
    if not isinstance(label, tuple):
        position = find_column(table, "label", columns, required=False)
        label = None if position is None else table.header[position]
    said = {row.split or "train" for row in rows}
    return Layout(
        "table",
        {split: (HERE,) for split in SPLITS if split in said},
        image_column=None if image is None else table.header[image],
        label_column=label,
        encoding="utf-8" if table.unit == "line" else None,
        left_out=tuple(LeftOut(f"column {name}", "not named in data.columns", 1) for name in unused),
    )
