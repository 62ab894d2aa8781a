"""Find tables that belong together, one for each split, and join them: in the folders of splits, or as lists.

`train/_classes.csv valid/_classes.csv`; `train.csv valid.csv` beside images; `meta/train.txt meta/test.txt`;
`annotations/instances_train2017.json`, whose images are in `train2017/`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import splitext

from finetune.choices import SPLITS, TABLE_SUFFIXES, Split, split_of
from finetune.data.image_files import list_entries, open_file
from finetune.data.indexing.find_images import find_images, is_image_name, list_folders, suffix_of
from finetune.data.indexing.folder_labels import has_folder_labels, with_folder_labels
from finetune.data.indexing.set_aside import ANNOTATIONS, COLLECTIONS, plain_folder
from finetune.data.indexing.split_names import split_groups
from finetune.data.indexing.table_beside import holds_class_folders, tables_in
from finetune.data.table import Columns, ImageFiles, Table, image_names, read_table
from finetune.data.table.columns import find_column
from finetune.data.table.guess import find_label, guess_columns
from finetune.errors import DataError, FinetuneError
from finetune.text import printable, quoted

_USUAL = ("_classes.csv",)
_LISTS = ANNOTATIONS | {"splits", "split", "lists", "list", "partitions", "sets"}
"""what folders of lists are called, as `plain_folder` writes it"""
_NO_CLASSES = ("caption", "keypoint", "panoptic", "submission")
"""what names of tables hold that say something else of images"""

_LOOKED_AT = 20
_STARTS = 4_096
"""bytes of a list by which it is told where its images are"""


@dataclass(frozen=True)
class SplitTable:
    """The table of a split."""

    name: str
    """relative to the folder of the data set"""
    split: Split
    images: str
    """folder of its images, likewise; empty for the data set's own"""


def find_split_tables(root: Path) -> dict[str, Split]:
    """Return the tables in the folders of splits, relative to the root; none unless one is for training.

    Raises:
        DataError: there are several in a folder.
    """
    tables: dict[str, Split] = {}
    for folder in list_folders(root):
        split = split_of(folder)
        name = None if split is None else _only_table(root / folder)
        if split is not None and name is not None:
            tables[f"{folder}/{name}"] = split
    return tables if "train" in tables.values() else {}


def _only_table(folder: Path) -> str | None:
    """Return the table of a folder in which images lie directly, and not in folders of classes.

    Raises:
        DataError: there are several.
    """
    tables = tables_in(folder)
    images = (is_image_name(entry.name) for entry in list_entries(folder) if not entry.is_folder)
    if not tables or not any(images):
        return None
    if any(find_images(folder, below).images for below in list_folders(folder)):
        return None
    usual = [name for name in tables if name in _USUAL]
    if len(usual or tables) > 1:
        raise DataError(
            f"{printable(str(folder))} holds several tables: {quoted(tables)}; set data.path to the one that "
            "has the labels, or move the others away."
        )
    return (usual or tables)[0]


def join_split_tables(root: Path, tables: Mapping[str, Split], columns: Columns) -> Table:
    """Return the tables of splits, each beside its images, as one, with a column for the split of each row.

    Raises:
        DataError: one cannot be read, or they have different columns.
    """
    ordered = sorted(tables, key=lambda name: (SPLITS.index(tables[name]), name))
    listed = [SplitTable(name, tables[name], name.rpartition("/")[0]) for name in ordered]
    return _joined(root, [_part(root, one, columns) for one in listed])


def read_listed_splits(root: Path, columns: Columns) -> Table | None:
    """Return the tables called like splits in a folder, or in one of lists in it, as one; None if none is.

    Those without classes are left out. Beside class folders they have to name images alone, of which the
    folders are the classes.

    Raises:
        DataError: several groups of tables say splits, or they have different columns.
    """
    in_classes = holds_class_folders(root)
    if in_classes and any(map(split_of, list_folders(root))):
        return None
    found: dict[tuple[str, ...], Table] = {}
    for group in _groups(root):
        key = tuple(sorted(splitext(table.name)[0] for table in group))
        if key not in found and (table := _read_group(root, group, columns, in_classes)) is not None:
            found[key] = table
    if len(found) > 1:
        lines = "".join(f"\ndata.path: {table}" for table in found.values())
        raise DataError(
            f"{printable(str(root))} holds {len(found)} groups of lists for splits. Which says the classes? "
            f"Naming the list to train on holds out a part of it:{lines}"
        )
    return next(iter(found.values()), None)


def read_only_list(root: Path, columns: Columns) -> Table | None:
    """Return the one table in a folder of lists beside images, as `annotations/default.json` of CVAT.

    Its images are in a folder of images, or in one called like the table in that.
    """
    if holds_class_folders(root):
        return None
    folders = [name for name in list_folders(root) if plain_folder(name) in _LISTS]
    tables = [f"{folder}/{name}" for folder in folders for name in tables_in(root / folder)]
    if len(tables) != 1:
        return None
    stem = splitext(tables[0])[0].rpartition("/")[2]
    usual = [name for name in list_folders(root) if plain_folder(name) in COLLECTIONS]
    within = [f"{name}/{below}" for name in usual for below in list_folders(root / name)]
    own = next((name for name in within if stem.endswith(name.rpartition("/")[2])), "")
    found = _labelled(root, SplitTable(tables[0], "train", own), columns)
    return None if found is None else replace(found[0], notes=(*found[0].notes, f"the list {tables[0]}"))


def split_lists(root: Path) -> list[str]:
    """Return the lists of training images that stand beside those of other splits, relative to a folder."""
    return [table.name for group in _groups(root) for table in group if table.split == "train"]


def _groups(root: Path) -> list[list[SplitTable]]:
    """Return the tables that are called like splits, those of one kind and one form of name together."""
    folders = ["", *(name for name in list_folders(root) if plain_folder(name) in _LISTS)]
    groups: list[list[SplitTable]] = []
    for folder in folders:
        names = [
            e.name for e in list_entries(root / folder) if not e.is_folder and not e.name.startswith(".")
        ]
        names = [name for name in names if not any(word in name.casefold() for word in _NO_CLASSES)]
        for ending in TABLE_SUFFIXES:
            stems = {splitext(name)[0]: name for name in sorted(names) if suffix_of(name) == ending}
            for splits in split_groups(list(stems)):
                groups.append(
                    [
                        SplitTable(f"{folder}/{stems[stem]}".lstrip("/"), split, _images_of(root, split))
                        for stem, split in splits.items()
                    ]
                )
    return groups


def _images_of(root: Path, split: Split) -> str:
    """Return the folder of the images of a split, directly in a data set or in its folder of images."""
    within = [name for name in list_folders(root) if plain_folder(name) in COLLECTIONS]
    for above in ("", *within):
        names = list_folders(root / above)
        for splits in split_groups(names):
            if fitting := [name for name, of in splits.items() if of == split]:
                return f"{above}/{fitting[0]}".lstrip("/")
    return ""


def _read_group(root: Path, group: Sequence[SplitTable], columns: Columns, in_classes: bool) -> Table | None:
    """Return the tables of splits that say classes as one; None unless that of training and another do."""
    train, *others = sorted(group, key=lambda table: SPLITS.index(table.split))
    first = _labelled(root, train, columns)
    if first is None or (in_classes and not has_folder_labels(first[0])):
        return None
    parts, known = [first[0]], first[1]
    unsaid: list[str] = []
    for table in others:
        if (found := _labelled(root, table, known)) is not None:
            parts.append(found[0])
        else:
            unsaid.append(table.name)
    if len(parts) < 2:
        return None
    names = [part.path.relative_to(root).as_posix() for part in parts]
    notes = (f"splits by {', '.join(names)}", *(f"{name} says no class of images" for name in unsaid))
    joined = _joined(root, parts)
    return replace(joined, path=parts[0].path, notes=(*parts[0].notes, *notes))


def _labelled(root: Path, table: SplitTable, columns: Columns) -> tuple[Table, Columns] | None:
    """Return the table of a split, and its columns, if it names images that are there and says classes."""
    for images in _image_folders(root, table):
        try:
            part = _part(root, replace(table, images=images), columns)
            known = guess_columns(part, ImageFiles(root), columns, ("image", "label")).columns
            image, label = find_column(part, "image", known, required=True), find_label(part, known)
        except FinetuneError:  # not one of images, or not of these
            continue
        if label is None or image is None:
            continue
        if ImageFiles(root).locate(part.column(image)[:_LOOKED_AT]).found:
            same = (
                replace(columns, label=label, found=(*columns.found, "label"))
                if columns.label is None
                else columns
            )
            return part, same
    return None


def _image_folders(root: Path, table: SplitTable) -> list[str]:
    """Return where the images of a list may be; first where its first words name files."""
    usual = [name for name in list_folders(root) if plain_folder(name) in COLLECTIONS]
    words = first_words(root / table.name)[:_LOOKED_AT]

    def missing(folder: str) -> bool:
        files = ImageFiles(root / folder)
        return not any(map(files.holds, words))

    return sorted(dict.fromkeys((table.images, "", *usual)), key=missing)


def first_words(path: Path) -> list[str]:
    """Return the words that a list begins with, or what stands in quotes."""
    with open_file(path) as file:
        text = file.read(_STARTS).decode("utf-8", "replace")
    return [word for word in re.split(r"[\s,;\"']+", text) if word][:-1]


def _joined(root: Path, parts: Sequence[Table]) -> Table:
    """Return the tables of some splits as one.

    Raises:
        DataError: they have different columns.
    """
    first = parts[0]
    for part in parts[1:]:
        if set(part.header) != set(first.header):
            differing = sorted(set(part.header) ^ set(first.header))
            raise DataError(
                f"{part} has other columns than {first}: {quoted(differing)} in one of them alone; the "
                "tables of all splits need the same."
            )
    order = [[part.header.index(name) for name in first.header] for part in parts]
    rows = [
        tuple(row[n] for n in places) for part, places in zip(parts, order, strict=True) for row in part.rows
    ]
    return replace(
        first,
        path=root,
        rows=tuple(rows),
        numbers=tuple(number for part in parts for number in part.numbers),
        files=tuple(part.path.relative_to(root).as_posix() for part in parts for _ in part.rows),
        lists=frozenset().union(*(part.lists for part in parts)),
    )


def _part(root: Path, listed: SplitTable, columns: Columns) -> Table:
    """Return the table of one split: images relative to the root, and a column for the split."""
    path, below = root / listed.name, Path(listed.images)
    files = ImageFiles(root / below)
    table = with_folder_labels(read_table(path, files=files, encoding=columns.encoding), columns)
    known = guess_columns(table, files, columns, ("image",)).columns
    position = find_column(table, "image", known, required=True)
    images = [(below / image).as_posix() for image in image_names(table, files, known)]
    if find_column(table, "split", columns, required=False) is not None:
        rows = [_replaced(row, position, image) for row, image in zip(table.rows, images, strict=True)]
        return replace(table, rows=tuple(rows))
    rows = [
        (*_replaced(row, position, image), listed.split)
        for row, image in zip(table.rows, images, strict=True)
    ]
    return replace(table, header=(*table.header, "split"), rows=tuple(rows))


def _replaced(row: Sequence[str], position: int | None, cell: str) -> tuple[str, ...]:
    return tuple(cell if n == position else other for n, other in enumerate(row))
