"""Say of files that other programs keep images or labels in how they become what is read."""

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from finetune.choices import ARCHIVE_SUFFIXES, FOREIGN_SUFFIXES
from finetune.data.image_files import in_archive, list_entries
from finetune.data.indexing.conversions import (
    cifar_binary_command,
    cifar_command,
    dicom_command,
    flowers_command,
    idx_command,
)
from finetune.errors import DataError
from finetune.text import printable

_AS_FILES = (
    "Write its images as files, into a folder for each class, and set data.path to the folder of these."
)
_IDX = re.compile(r".*(images|labels).idx[13].ubyte(\.gz)?", re.IGNORECASE)
_CIFAR = re.compile(r"(data_batch_\d+|test_batch)(\.bin)?")
_CIFAR_100 = frozenset(("train", "test", "meta"))


def refuse_foreign(path: Path) -> None:
    """Refuse a file of another program, by its name.

    Raises:
        DataError: it is one.
    """
    if (known := _known_files([path.name], path.parent)) is not None:
        raise DataError(f"{printable(str(path))} {known}")
    if path.suffix.lower() in (".yaml", ".yml"):
        raise DataError(
            f"{printable(str(path))} is a YAML file, which says nothing of single images.\nOf YOLO, whose "
            f"data.yaml names the classes, the folder is read: data.path: {printable(str(path.parent))}"
        )
    what = FOREIGN_SUFFIXES.get(path.suffix.lower())
    if what is not None:
        raise DataError(f"{printable(str(path))} is {what}, which is not read.\n{foreign_advice(path)}")


def foreign_hint(folder: Path, endings: Mapping[str, int]) -> str:
    """Return what to do with files in a folder without images, by their endings; empty if that is unknown."""
    names = [entry.name for entry in list_entries(folder) if not entry.is_folder]
    if (known := _known_files(names, folder)) is not None:
        return f"\nThe folder {known}"
    if any(endings.get(ending) for ending in ARCHIVE_SUFFIXES):
        if in_archive(folder):
            return "\nArchives in an archive are not read: unpack it, and set data.path to what is in it."
        return "\nArchives in a folder are not read: unpack them there, or set data.path to one of them."
    if endings.get(".parquet"):
        return "\nParquet is read where it lies: set data.path to the folder of the files, or to one of them."
    return labels_hint(folder, endings)


def labels_hint(folder: Path, endings: Mapping[str, int]) -> str:
    """Return what to do with files of other programs beside images, which may say their classes."""
    ending = next((ending for ending in FOREIGN_SUFFIXES if endings.get(ending)), None)
    if ending is None:
        return ""
    names = sorted(entry.name for entry in list_entries(folder) if entry.name.lower().endswith(ending))
    name = "imagelabels.mat" if "imagelabels.mat" in names else names[0] if names else f"FILE{ending}"
    return f"\n{ending} is {FOREIGN_SUFFIXES[ending]}. {foreign_advice(folder / name)}"


def _known_files(names: Collection[str], folder: Path) -> str | None:
    """Return what is to be said of files of MNIST and CIFAR, by their names."""
    into = f"then data.path: {printable(str(folder / 'png'))}"
    if any(map(_IDX.fullmatch, names)):
        return f"holds IDX files, as of MNIST.\nWrite them as images there, {into}: {idx_command()}"
    batches = [match for match in map(_CIFAR.fullmatch, names) if match]
    if any(match[2] for match in batches):
        return f"holds batches of CIFAR.\nWrite them as images there, {into}: {cifar_binary_command()}"
    if batches or (set(names) >= _CIFAR_100 and folder.name.startswith("cifar")):
        command = cifar_command("CIFAR10" if batches else "CIFAR100")
        return (
            "holds Python objects of CIFAR, which might run code and are not read.\n"
            f"Let torchvision write them as images there, {into}: {command}"
        )
    return None


def foreign_advice(path: Path) -> str:
    """Return the line that makes data of a file that can be read."""
    name = printable(shlex.quote(path.name))
    match path.suffix.lower():
        case ".lst":
            return f"As a table it is: cp {name} {printable(shlex.quote(path.stem))}.tsv"
        case ".mat" if path.name in ("imagelabels.mat", "setid.mat"):
            return f"Write its labels as a table there, then data.path: labels.csv: {flowers_command()}"
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
        case ".dcm" | ".dicom":
            return f"Write a PNG file beside each: {dicom_command()}"
    return _AS_FILES
