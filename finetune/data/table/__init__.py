"""Tables of images: which file one is, what its cells hold, and which column means what. No torch here."""

from finetune.data.table.columns import (
    USUAL_COLUMNS,
    Columns,
    find_column,
    guess_group,
    unused_columns,
)
from finetune.data.table.files import ImageFiles, KnownFiles
from finetune.data.table.guess import guess_columns
from finetune.data.table.labels import guess_separator, joint_labels
from finetune.data.table.reader import Table, is_table, read_table
from finetune.data.table.row_images import image_names
from finetune.data.table.rows import ImageRow, TableRows, read_rows
from finetune.data.table.usual_names import ROLES, Role

__all__ = [
    "ROLES",
    "USUAL_COLUMNS",
    "Columns",
    "ImageFiles",
    "ImageRow",
    "KnownFiles",
    "Role",
    "Table",
    "TableRows",
    "find_column",
    "guess_columns",
    "guess_group",
    "guess_separator",
    "image_names",
    "is_table",
    "joint_labels",
    "read_rows",
    "read_table",
    "unused_columns",
]
