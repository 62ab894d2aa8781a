"""Find the annotation file of CVAT in a folder, and read it as a table."""

from pathlib import Path

from finetune.choices import Split, split_of
from finetune.data.image_files import file_exists, is_folder, open_file
from finetune.data.table import Table
from finetune.data.table.cvat_xml import read_cvat
from finetune.data.table.json_objects import LIST_SEPARATOR
from finetune.data.table.json_tables import JsonRows
from finetune.data.table.reader import table_of_objects
from finetune.data.table.tool_json import kept_rows
from finetune.errors import DataError
from finetune.text import printable

_NAME = "annotations.xml"
_LARGEST = 256 << 20
"""bytes of an annotation file; more are not read"""


def read_cvat_file(path: Path) -> Table | None:
    """Return the annotation file at a path, or in the folder there, as a table; None where none is.

    Raises:
        DataError: the file is none of CVAT, or cannot be read.
    """
    file = path / _NAME if is_folder(path) else path
    if file.suffix.lower() != ".xml" or not file_exists(file) or is_folder(file):
        return None
    with open_file(file) as opened:
        content = opened.read(_LARGEST + 1)
    try:
        if len(content) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST >> 20} MiB")
        return _table(file, content)
    except ValueError as error:
        if file != path:  # of another tool, beside what is read
            return None
        raise DataError(
            f"{printable(str(file))}: {printable(str(error))}.\n"
            "Of XML, annotations of CVAT for images are read, and those of Pascal VOC beside images; write "
            "it as one."
        ) from None


def _table(file: Path, content: bytes) -> Table:
    images = read_cvat(content)
    tagged = any(image.tags for image in images)
    labels = [(image.name, list(image.tags if tagged else image.marks)) for image in images]
    if held := next((name for _, names in labels for name in names if LIST_SEPARATOR in name), None):
        raise ValueError(f"the label {held!r} holds {LIST_SEPARATOR!r}")
    found, notes = kept_rows(labels, "CVAT")
    splits = {image.name: split_of(image.subset) for image in images}
    said = _splits(splits)
    rows = JsonRows(file)
    for number, row in enumerate(found, start=1):
        rows.add(number, {**row, **({"split": said[row["image"]]} if said else {})})
    rows.notes = notes
    return table_of_objects(rows)


def _splits(subsets: dict[str, Split | None]) -> dict[str, Split]:
    """Return the split of each image; nothing unless all images are in one, and some to train on."""
    said = {name: split for name, split in subsets.items() if split is not None}
    return said if len(said) == len(subsets) and "train" in said.values() else {}
