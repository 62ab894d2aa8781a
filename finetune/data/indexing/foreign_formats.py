"""Say of files that other programs keep images or labels in how they become what is read."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from finetune.choices import ARCHIVE_SUFFIXES, FOREIGN_SUFFIXES
from finetune.data.image_files import in_archive
from finetune.errors import DataError
from finetune.text import printable

_AS_FILES = (
    "Write its images as files, into a folder for each class, and set data.path to the folder of these."
)


def refuse_foreign(path: Path) -> None:
    """Refuse a file of another program, by its name.

    Raises:
        DataError: it is one.
    """
    what = FOREIGN_SUFFIXES.get(path.suffix.lower())
    if what is not None:
        raise DataError(f"{printable(str(path))} is {what}, which is not read.\n{_advice(path)}")


def foreign_hint(folder: Path, endings: Mapping[str, int]) -> str:
    """Return what to do with files in a folder without images, by their endings; empty if that is unknown."""
    if any(endings.get(ending) for ending in ARCHIVE_SUFFIXES):
        if in_archive(folder):
            return "\nArchives in an archive are not read: unpack it, and set data.path to what is in it."
        return "\nArchives in a folder are not read: unpack them there, or set data.path to one of them."
    if endings.get(".parquet"):
        return "\nParquet is read where it lies: set data.path to the folder of the files, or to one of them."
    ending = next((ending for ending in FOREIGN_SUFFIXES if endings.get(ending)), None)
    if ending is None:
        return ""
    return f"\n{ending} is {FOREIGN_SUFFIXES[ending]}. {_advice(folder / f'FILE{ending}')}"


def _advice(path: Path) -> str:
    """Return the line that makes data of a file that can be read."""
    name = printable(shlex.quote(path.name))
    match path.suffix.lower():
        case ".lst":
            return f"As a table it is: cp {name} {printable(shlex.quote(path.stem))}.tsv"
        case ".mat":
            code = shlex.quote(f"import scipy.io; print(scipy.io.loadmat({path.name!r}, squeeze_me=True))")
            return (
                f"Write its labels as a table of image and label; what it holds: python -c {printable(code)}"
            )
        case ".arrow":
            code = (
                f"import datasets; datasets.load_from_disk({str(path.parent)!r}).to_parquet('train.parquet')"
            )
            return f"Write it as Parquet, which is read: python -c {printable(shlex.quote(code))}"
    return _AS_FILES
