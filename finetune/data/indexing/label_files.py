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
from finetune.data.image_files import file_exists, list_entries, open_file
from finetune.data.indexing.find_images import is_image_name, list_folders
from finetune.data.indexing.set_aside import ANNOTATIONS, COLLECTIONS, plain_folder
from finetune.data.indexing.shards import split_of_file
from finetune.data.table import Columns, ImageFiles, Table, guess_columns
from finetune.data.table.guess import find_label
from finetune.data.table.json_tables import JsonRows, parse_json
from finetune.data.table.reader import table_of_objects
from finetune.data.table.voc_xml import VocObjects, read_voc
from finetune.data.table.yolo_txt import NAME_FILES, class_names, looks_like_yolo, read_yolo
from finetune.errors import DataError
from finetune.text import counted, printable, shortened

Kind = Literal["cls", "json", "xml", "txt"]

_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "cls": ("{stem}.cls",),
    "json": ("{stem}.json", "{name}.json", "{name}___objects.json"),
    "xml": ("{stem}.xml",),
    "txt": ("{stem}.txt",),
}
"""what the file of an image is called"""
_LARGEST = 4 << 20
"""bytes of a file about one image; more are not read"""
_LARGEST_LIST = 256 << 20
_LOOKED_AT = 20  # files by which their kind is told
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
    parts = parts or _across(root)
    if (
        not parts
        or len({part.kind for part in parts}) > 1
        or "train" not in {p.split or "train" for p in parts}
    ):
        return None
    if parts[0].kind == "txt" and not looks_like_yolo(
        _content(root, parts[0].pairs[n][1]) for n in _some(parts[0])
    ):
        return None
    return _of_objects(root, parts) if parts[0].kind in ("xml", "txt") else _of_values(root, parts, columns)


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
    files_of = {f"{above}{beside}": files for beside, files in files_of.items()}
    return _matched([f"{above}{image}" for image in images], files_of, split)


def _across(root: Path) -> list[_Part]:
    """Return the parts of `images/train images/val` with `labels/train labels/val`, as YOLO has them."""
    folders = list_folders(root)
    pictures = [name for name in folders if plain_folder(name) in COLLECTIONS]
    notes = [name for name in folders if plain_folder(name) in ANNOTATIONS]
    parts = []
    for above in pictures if len(pictures) == 1 else ():
        for name in list_folders(root / above):
            images = [f"{above}/{name}/{one}" for one in _files_in(root / above / name) if is_image_name(one)]
            there = [note for note in notes if name in list_folders(root / note)]
            files_of = {f"{note}/{name}/": frozenset(_files_in(root / note / name)) for note in there}
            split = split_of(name) or split_of(name.rstrip("0123456789"))
            if split is not None and (part := _matched(images, files_of, split)) is not None:
                parts.append(part)
    return parts


def _matched(
    images: Sequence[str], files_of: Mapping[str, Collection[str]], split: Split | None
) -> _Part | None:
    """Return images with their files in one of some folders; None unless enough of them have one."""
    for kind, forms in _NAMES.items():
        for beside, files in files_of.items():
            pairs = [(image, f"{beside}{file}") for image, file in _pairs(images, files, forms)]
            if images and len(pairs) >= _ENOUGH * len(images):
                return _Part(kind, split, pairs, len(images) - len(pairs))
    return None


def _files_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in list_entries(folder) if not entry.is_folder)


def _pairs(images: Sequence[str], files: Collection[str], forms: Sequence[str]) -> Iterator[tuple[str, str]]:
    for image in images:
        name = image.rpartition("/")[2]
        named = (form.format(stem=splitext(name)[0], name=name) for form in forms)
        if (file := next((one for one in named if one in files), None)) is not None:
            yield image, file


def _content(root: Path, file: str, *, most: int = _LARGEST) -> bytes:
    try:
        with open_file(root / file) as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise DataError(
            f"cannot read {printable(str(root / file))}: {(error.strerror or '').lower()}."
        ) from None
    if len(content) > most:
        raise _refusal(root, file, f"it has more than {most >> 20} MiB, too much for what it is")
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
    table = _table(parts, rows, ())
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
    """Return a table of the classes of the objects that files of XML or YOLO say are in each image."""
    names_of = _yolo_names(root) if parts[0].kind == "txt" else {}
    found: list[tuple[str, Split | None, tuple[str, ...]]] = []
    difficult = 0
    for part in parts:
        for image, file in part.pairs:
            try:
                objects = _objects(part.kind, _content(root, file))
            except ValueError as error:
                raise _refusal(root, file, str(error)) from None
            found.append((image, part.split, tuple(names_of.get(name, name) for name in objects.names)))
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
    return _table(parts, rows, ("all objects of an image" if several else "the object of an image", *notes))


def _objects(kind: Kind, content: bytes) -> VocObjects:
    return read_voc(content) if kind == "xml" else VocObjects(read_yolo(content), 0)


def _yolo_names(root: Path) -> Mapping[str, str]:
    """Return the names of the classes of YOLO by their numbers; nothing where no file names them."""
    for name in NAME_FILES:
        if file_exists(root / name):
            try:
                return class_names(name, _content(root, name).decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise _refusal(root, name, "the names of classes are not UTF-8") from None
    return {}


def _some(part: _Part) -> range:
    """Return the positions of some files of a part."""
    return range(0, len(part.pairs), max(1, len(part.pairs) // _LOOKED_AT))


def _with_lists(
    root: Path, found: Sequence[tuple[str, Split | None, tuple[str, ...]]]
) -> tuple[list[tuple[str, Split | None, tuple[str, ...]]], int]:
    """Return the images with the splits that lists of Pascal VOC say, and how many are in no list."""
    lists: dict[str, Split] = {}
    stems = {splitext(image)[0].rpartition("/")[2] for image, _, _ in found}
    for split in ("test", "val", "train"):
        name = f"ImageSets/Main/{split}.txt"
        if file_exists(root / name):
            content = _content(root, name, most=_LARGEST_LIST)
            lines = [line.strip() for line in content.decode("utf-8", "surrogateescape").split("\n")]
            lists |= {line if line in stems else line.split()[0]: split for line in lines if line}
    if "train" not in lists.values():
        return list(found), 0
    named = [(image, lists.get(splitext(image)[0].rpartition("/")[2]), names) for image, _, names in found]
    kept = [one for one in named if one[1] is not None]
    return kept, len(named) - len(kept)


def _table(parts: Sequence[_Part], rows: JsonRows, notes: Sequence[str]) -> Table:
    without = sum(part.without for part in parts)
    lines = [f"labels by the .{parts[0].kind} file of each image", *notes]
    lines += [f"{counted(without, 'image')} without one left out"] if without else []
    rows.notes = tuple(lines)
    return table_of_objects(rows)
