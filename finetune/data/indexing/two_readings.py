"""Ask what says the classes where folders do, and a table beside them says others of the same images.

`images/ masks/ labels.csv` is a table and its images, and not two classes. A table that gives all images of a
folder one class says what the folders do, in other words perhaps.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from posixpath import basename, dirname

from finetune.choices import split_of
from finetune.data.indexing.find_images import list_folders, suffix_of
from finetune.data.indexing.table_beside import holds_class_folders, tables_in
from finetune.data.table import Columns, ImageFiles, Table, image_names, read_table
from finetune.data.table.columns import find_column
from finetune.errors import DataError, FinetuneError
from finetune.text import printable, quoted

_NAMED = 0.5  # share of its rows that name images in the folders, from which on a table is one of them
_LOOKED_AT = 500
"""rows all over a table by which it is told where its images are"""


def refuse_other_labels(root: Path, columns: Columns) -> None:
    """Refuse class folders with a table beside them that says other classes of their images.

    Raises:
        DataError: there is such a table; the message names what settles it.
    """
    tables = [name for name in tables_in(root) if suffix_of(name) != ".json"]
    if not tables or not holds_class_folders(root):
        return
    for name in tables:
        if (example := _contradiction(root, name, columns)) is not None:
            where = printable(str(root))
            raise DataError(
                f"{where} holds folders of images, and {printable(name)} says that {example}. "
                "Which says the classes?\n"
                f"data.path: {printable(str(root / name))}      the table\n"
                f"data.layout: classes      the folders, or the folder of each split"
            )


def refuse_table_of_one_split(table: Table, files: ImageFiles, columns: Columns) -> None:
    """Refuse a table of validation or test images alone, with class folders for training beside those.

    Raises:
        DataError: it is one, as `LOC_val_solution.csv` of ImageNet on Kaggle.
    """
    step = max(1, len(table.rows) // _LOOKED_AT)
    rows, numbers, of_file = table.rows[::step], table.numbers[::step], table.files[::step]
    some = replace(table, rows=rows, numbers=numbers, files=of_file)
    try:
        folders = set(map(dirname, image_names(some, files, columns)))
    except FinetuneError:  # said where the table is read
        return
    folder = folders.pop() if len(folders) == 1 else ""
    if files.root is None or split_of(basename(folder)) not in ("val", "test"):
        return
    above = files.root / dirname(folder)
    train = next((name for name in list_folders(above) if split_of(name) == "train"), None)
    if train is not None and holds_class_folders(above / train):
        raise DataError(
            f"{table} says the classes of {printable(folder)} alone, and beside that {printable(train)} "
            "holds a folder for each class. Which is to be trained on?\n"
            f"data.path: {printable(str(above / train))}      the folders\n"
            f"data.path: {printable(str(table.path))}      the table"
        )


def _contradiction(root: Path, name: str, columns: Columns) -> str | None:
    """Return an image of which a table says another class than of its neighbours; None where none is.

    Only a column that is called like one of labels counts: one of sites or dates tells no classes.
    """
    files = ImageFiles(root)
    try:
        table = read_table(root / name, files=files, encoding=columns.encoding)
        label = find_column(table, "label", Columns(), required=False)
        images = [] if label is None else image_names(table, files, Columns())
    except FinetuneError:  # a table of something else
        return None
    return None if label is None else _first_other(images, table.column(label), files)


def _first_other(images: Sequence[str], labels: Sequence[str], files: ImageFiles) -> str | None:
    """Return the first image whose label is not that of the first in its folder."""
    rows = [(image, label.strip()) for image, label in zip(images, labels, strict=True)]
    there = [(image, label) for image, label in rows if label and files.has(image)]
    if len(there) < _NAMED * len(rows):
        return None
    of_folder: dict[str, str] = {}
    for image, label in there:
        other = of_folder.setdefault(dirname(image), label)
        if other != label:
            return f"in {printable(dirname(image))} there are {quoted([other, label])}"
    return None
