"""Tables of images: which file one is, what its cells hold, and which column means what. No torch here."""

from finetune.data.table.columns import (
    ROLES,
    USUAL_COLUMNS,
    Columns,
    Role,
    find_column,
    guess_group,
    unused_columns,
)
from finetune.data.table.labels import guess_separator
from finetune.data.table.reader import Table, is_table, read_table
from finetune.data.table.rows import ImageRow, image_names, read_rows

__all__ = [
    "ROLES",
    "USUAL_COLUMNS",
    "Columns",
    "ImageRow",
    "Role",
    "Table",
    "find_column",
    "guess_group",
    "guess_separator",
    "image_names",
    "is_table",
    "read_rows",
    "read_table",
    "unused_columns",
]
