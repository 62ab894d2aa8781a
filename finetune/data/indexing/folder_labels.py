"""Read lists of paths and nothing else, of which the folder that each image is in is its class.

`meta/train.txt` of Food-101 has lines such as `apple_pie/1005649`.
"""

from collections.abc import Sequence
from dataclasses import replace
from posixpath import basename, dirname

from finetune.data.indexing.set_aside import COLLECTIONS, plain_folder
from finetune.data.table import Columns, Table
from finetune.data.table.columns import numbered_alike

_LABEL = "label"
_NOTE = "classes by the folders of the images"


def with_folder_labels(table: Table, columns: Columns) -> Table:
    """Return a table of one column, of paths in two folders or more, with these as labels; else itself.

    Not where folders are called like parts of a whole, such as `images_001`. Where the column of labels is
    known, as from the list of another split, one folder is enough.
    """
    if columns.label not in (None, _LABEL) or len(table.header) != 1:
        return table
    folders = [basename(dirname(cell.strip().replace("\\", "/"))) for cell in table.column(0)]
    if not _are_classes(folders, fewest=2 if columns.label is None else 1):
        return table
    rows = tuple((*row, folder) for row, folder in zip(table.rows, folders, strict=True))
    header = (table.header[0] if table.headed else "image", _LABEL)
    return replace(table, header=header, rows=rows, notes=(*table.notes, _NOTE))


def has_folder_labels(table: Table) -> bool:
    """Tell whether the labels of a table are the folders of its images."""
    return _NOTE in table.notes


def _are_classes(folders: Sequence[str], fewest: int) -> bool:
    names = set(folders)
    return (
        all(names)
        and len(names) >= fewest
        and not any(plain_folder(name) in COLLECTIONS for name in names)
        and not numbered_alike(sorted(names))
    )
