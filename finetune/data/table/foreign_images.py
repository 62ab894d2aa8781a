"""Say of tables whose images are files of another program, such as DICOM, how these become images."""

from collections.abc import Collection
from pathlib import Path

from finetune.choices import FOREIGN_SUFFIXES
from finetune.data.image_files import list_entries
from finetune.data.indexing.find_images import list_folders, suffix_of
from finetune.data.indexing.foreign_formats import foreign_advice
from finetune.data.table.files import ImageFiles
from finetune.data.table.reader import Table
from finetune.errors import DataError
from finetune.text import printable


def refuse_foreign_names(table: Table, names: Collection[str]) -> None:
    """Refuse a table all of whose images are called like files of another program.

    Raises:
        DataError: they are.
    """
    endings = {suffix_of(name.rpartition("/")[2]) for name in names}
    if len(endings) == 1 and endings <= FOREIGN_SUFFIXES.keys():
        raise _refusal(table, min(names), f", and write .png for {min(endings)} in the table")


def refuse_foreign_images(table: Table, files: ImageFiles) -> None:
    """Refuse a table, none of whose columns names images, where one names files of another program.

    Raises:
        DataError: it does.
    """
    there = {} if files.root is None else _foreign_files(files.root)
    for position in range(len(table.header) if there else 0):
        cells = set(table.column(position))
        named = sorted(cell for cell in cells if cell in there)
        if 2 * len(named) >= len(cells):
            raise _refusal(table, there[named[0]], "")


def _foreign_files(root: Path) -> dict[str, str]:
    """Return the files of other programs in a folder and those directly in it, by name and by stem."""
    found: dict[str, str] = {}
    for folder in ("", *list_folders(root)):
        for entry in list_entries(root / folder):
            if not entry.is_folder and suffix_of(entry.name) in FOREIGN_SUFFIXES:
                name = f"{folder}/{entry.name}".lstrip("/")
                found |= dict.fromkeys((name, entry.name, entry.name.rpartition(".")[0]), name)
    return found


def _refusal(table: Table, example: str, then: str) -> DataError:
    what = FOREIGN_SUFFIXES[suffix_of(example)]
    return DataError(
        f"{table}: its images are files such as {printable(example)}, {what}, which is not read.\n"
        f"{foreign_advice(Path(example))}{then}"
    )
