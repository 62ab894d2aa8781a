"""Read the classes of a split from a list in its folder, where its images lie in no class folders.

Tiny ImageNet has `train/n01443537/images/1.JPEG`, and `val/images/1.JPEG` with `val/val_annotations.txt`.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from finetune.choices import TABLE_SUFFIXES
from finetune.data.image_files import list_entries
from finetune.data.indexing.find_images import FoundImages, suffix_of
from finetune.data.indexing.part import Part
from finetune.data.indexing.set_aside import COLLECTIONS, plain_folder
from finetune.data.table import USUAL_COLUMNS, ImageFiles, read_rows, read_table
from finetune.errors import FinetuneError

_MOST = 20  # tables in a folder; more are each about one image


def lies_in_no_class(part: Part) -> bool:
    """Tell whether the images of a part lie in its folder, or in one such as `images`, and not in classes."""
    return bool(part.found.images) and all(plain_folder(name) in COLLECTIONS for name in part.counts)


def part_from_list(part: Part, class_names: Collection[str]) -> Part:
    """Return a part with the classes that the one table in its folder says; itself where none does.

    Args:
        part: a split whose images lie in no class folders.
        class_names: the classes that count; a table that says others is none of these images.
    """
    folder = part.root / part.folder
    names = [entry.name for entry in list_entries(folder) if not entry.is_folder]
    tables = sorted(name for name in names if suffix_of(name) in TABLE_SUFFIXES and name[0] != ".")
    found = [
        replace(part, found=_without(part, name), labels=labels, counts=_counted(labels), listed=name)
        for name in (tables if len(tables) <= _MOST else ())
        if (labels := _labels(part, name)) and set(labels.values()) <= set(class_names)
    ]
    return found[0] if len(found) == 1 else part


def _without(part: Part, name: str) -> FoundImages:
    """Return what lies in a part without a table that is read."""
    ignored = part.found.ignored - Counter([suffix_of(name)])
    return replace(part.found, ignored=ignored)


def _labels(part: Part, name: str) -> dict[str, str]:
    """Return the class that a table says of each image of a part; nothing where it says none."""
    folder = part.root / part.folder
    files = ImageFiles(folder)
    try:
        rows = read_rows(read_table(folder / name, files=files), files, USUAL_COLUMNS).rows
    except FinetuneError:  # a table of something else
        return {}
    said = {f"{part.folder}/{row.name}".lstrip("/"): row.labels[0] for row in rows if row.labels}
    return {image: said[image] for image in part.found.images if image in said}


def _counted(labels: dict[str, str]) -> dict[str, int]:
    counts = dict.fromkeys(sorted(set(labels.values()), key=str.encode), 0)
    for label in labels.values():
        counts[label] += 1
    return counts
