"""Read labels from a file beside each image: shards of WebDataset, Pascal VOC, one JSON file for an image.

`000.jpg 000.cls`, `000.jpg 000.json`, `JPEGImages/1.jpg Annotations/1.xml`: in a folder, an archive, the
folders of splits, or in several archives side by side.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path
from posixpath import splitext
from typing import Any, Literal

from finetune.choices import Split, split_of
from finetune.data.image_files import list_entries, open_file
from finetune.data.indexing.find_images import is_image_name, list_folders
from finetune.data.indexing.set_aside import ANNOTATIONS, COLLECTIONS, plain_folder
from finetune.data.indexing.shards import split_of_file
from finetune.data.table import Columns, ImageFiles, Table, guess_columns
from finetune.data.table.guess import find_label
from finetune.data.table.json_tables import JsonRows, parse_json
from finetune.data.table.voc_xml import read_voc
from finetune.errors import DataError
from finetune.text import counted, printable, shortened

Kind = Literal["cls", "json", "xml"]

_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "cls": ("{stem}.cls",),
    "json": ("{stem}.json", "{name}.json", "{name}___objects.json"),
    "xml": ("{stem}.xml",),
}
"""what the file of an image is called"""
_LARGEST = 4 << 20
"""bytes of a file about one image; more are not read"""
_ENOUGH = 0.5  # share of the images that have a file, from which on the files are those of the images


@dataclass(frozen=True)
class _Part:
    """Images with a file for each."""

    kind: Kind
    split: Split | None
    pairs: Sequence[tuple[str, str]]
    """image and file, as POSIX paths relative to the data set"""
    without: int
    """images that have no file"""


def find_label_files(root: Path, columns: Columns) -> Table | None:
    """Return what the files beside images say as a table; None where there are none, or they say no class.

    Raises:
        DataError: a file that cannot be read.
    """
    parts = [part for folder, split in _places(root) if (part := _part(root, folder, split)) is not None]
    if (
        not parts
        or len({part.kind for part in parts}) > 1
        or "train" not in {p.split or "train" for p in parts}
    ):
        return None
    return _of_objects(root, parts) if parts[0].kind == "xml" else _of_values(root, parts, columns)


def refuse_part_of_voc(path: Path) -> None:
    """Refuse a folder or file inside a data set of Pascal VOC, which is read as a whole.

    Raises:
        DataError: the path leads into one.
    """
    for root in list(path.parents)[:3]:
        if all(isdir(root / part) for part in ("JPEGImages", "Annotations")):
            shown = printable(str(root))
            raise DataError(
                f"{printable(str(path))} is a part of {shown}, a data set in the format of Pascal VOC.\n"
                f"data.path: {shown}      images, classes and splits by its annotations and lists"
            )


def _places(root: Path) -> Iterator[tuple[str, Split | None]]:
    """Return the folders and archives in which images and files may lie side by side."""
    entries = list_entries(root)
    if any(is_image_name(entry.name) for entry in entries if not entry.is_folder):
        yield "", None
        return
    folders = list_folders(root)
    if not any(split_of(name) == "train" for name in folders):
        yield "", None
    yield from ((name, split) for name in folders if (split := split_of(name)) is not None)
    archives = sorted(e.name for e in entries if not e.is_folder and e.name.lower().endswith(".tar"))
    yield from ((name, split) for name in archives if (split := split_of_file(name)) is not None)


def _part(root: Path, folder: str, split: Split | None) -> _Part | None:
    """Return the images of a folder and their files; None unless enough of them have one."""
    place = root / folder
    entries = list_entries(place)
    names = [entry.name for entry in entries if not entry.is_folder]
    images, files_of = sorted(filter(is_image_name, names)), {"": frozenset(names)}
    if not images:
        inside = sorted(entry.name for entry in entries if entry.is_folder)
        pictures = [name for name in inside if plain_folder(name) in COLLECTIONS]
        if len(pictures) != 1:
            return None
        images = [f"{pictures[0]}/{name}" for name in _files_in(place / pictures[0]) if is_image_name(name)]
        notes = [name for name in inside if plain_folder(name) in ANNOTATIONS]
        files_of = {f"{name}/": frozenset(_files_in(place / name)) for name in notes}
    above = f"{folder}/" if folder else ""
    for kind, forms in _NAMES.items():
        for beside, files in files_of.items():
            pairs = list(_pairs(images, files, forms))
            if images and len(pairs) >= _ENOUGH * len(images):
                whole = [(f"{above}{image}", f"{above}{beside}{file}") for image, file in pairs]
                return _Part(kind, split, whole, len(images) - len(pairs))
    return None


def _files_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in list_entries(folder) if not entry.is_folder)


def _pairs(images: Sequence[str], files: Collection[str], forms: Sequence[str]) -> Iterator[tuple[str, str]]:
    for image in images:
        name = image.rpartition("/")[2]
        named = (form.format(stem=splitext(name)[0], name=name) for form in forms)
        if (file := next((one for one in named if one in files), None)) is not None:
            yield image, file


def _content(root: Path, file: str) -> bytes:
    try:
        with open_file(root / file) as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        raise DataError(
            f"cannot read {printable(str(root / file))}: {(error.strerror or '').lower()}."
        ) from None
    if len(content) > _LARGEST:
        raise _refusal(
            root, file, f"it has more than {_LARGEST >> 20} MiB, too much for a file about one image"
        )
    return content


def _refusal(root: Path, file: str, why: str) -> DataError:
    return DataError(
        f"{printable(str(root / file))}: {printable(shortened(why, 200))}.\n"
        "Repair the file, or move it and its image away."
    )


def _of_values(root: Path, parts: Sequence[_Part], columns: Columns) -> Table | None:
    """Return a table of what files of JSON or single texts say; None if that is no class."""
    rows = JsonRows(root)
    for part in parts:
        for image, file in part.pairs:
            values = _value(root, file, part.kind)
            said = {"split": part.split} if part.split else {}
            rows.add(len(rows.rows) + 1, {**values, "image": image, **said})
    table = _table(root, parts, rows, ())
    try:
        guessed = guess_columns(table, ImageFiles(root), columns, ("image", "label"))
    except DataError:  # several columns may hold the label, which is asked when the table is read
        return table
    return None if find_label(table, guessed.columns) is None else table


def _value(root: Path, file: str, kind: Kind) -> dict[str, Any]:
    content = _content(root, file)
    try:
        text = content.decode("utf-8-sig").strip()
        value = {"label": text} if kind == "cls" else parse_json(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(root, file, f"no JSON in UTF-8 ({error})" if kind == "json" else str(error)) from None
    if kind == "json" and not isinstance(value, dict):
        value = {"label": value}
    return dict(value)


def _of_objects(root: Path, parts: Sequence[_Part]) -> Table:
    """Return a table of the classes of the objects that XML files say are in each image."""
    found: list[tuple[str, Split | None, tuple[str, ...]]] = []
    difficult = 0
    for part in parts:
        for image, file in part.pairs:
            try:
                objects = read_voc(_content(root, file))
            except ValueError as error:
                raise _refusal(root, file, str(error)) from None
            found.append((image, part.split, objects.names))
            difficult += objects.difficult
    several = any(len(names) > 1 for _, _, names in found)
    kept = [one for one in found if several or one[2]]
    notes = [f"{counted(difficult, 'object')} marked as difficult left out"] if difficult else []
    if len(kept) < len(found):
        notes.append(f"{counted(len(found) - len(kept), 'image')} without an object left out")
    kept, unlisted = _with_lists(root, kept)
    notes += [f"{counted(unlisted, 'image')} in no list of ImageSets/Main left out"] if unlisted else []
    rows = JsonRows(root)
    for number, (image, split, names) in enumerate(kept, start=1):
        said = {"split": split} if split else {}
        rows.add(number, {"image": image, "label": list(names) if several else names[0], **said})
    return _table(
        root, parts, rows, ("all objects of an image" if several else "the object of an image", *notes)
    )


def _with_lists(
    root: Path, found: Sequence[tuple[str, Split | None, tuple[str, ...]]]
) -> tuple[list[tuple[str, Split | None, tuple[str, ...]]], int]:
    """Return the images with the splits that lists of Pascal VOC say, and how many are in no list."""
    lists: dict[str, Split] = {}
    for split in ("test", "val", "train"):
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        if path.is_file():
            lines = path.read_text("utf-8", errors="surrogateescape").split("\n")
            lists |= {line.split()[0]: split for line in lines if line.strip()}
    if "train" not in lists.values():
        return list(found), 0
    named = [(image, lists.get(splitext(image)[0].rpartition("/")[2]), names) for image, _, names in found]
    kept = [one for one in named if one[1] is not None]
    return kept, len(named) - len(kept)


def _table(root: Path, parts: Sequence[_Part], rows: JsonRows, notes: Sequence[str]) -> Table:
    without = sum(part.without for part in parts)
    lines = [f"labels by the .{parts[0].kind} file of each image", *notes]
    lines += [f"{counted(without, 'image')} without one left out"] if without else []
    return Table(
        root,
        tuple(rows.columns),
        rows.cells(),
        tuple(rows.numbers),
        unit="entry",
        lists=frozenset(rows.lists),
        notes=tuple(lines),
    )
