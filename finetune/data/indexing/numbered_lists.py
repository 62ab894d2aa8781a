"""Read lists that belong together by the numbers of the images, as of CUB-200-2011 and NABirds.

`images.txt` has the path of each number, `image_class_labels.txt` its class, `classes.txt` the name of each
class, and `train_test_split.txt` 1 for training and 0 for test.
"""

from collections.abc import Mapping
from pathlib import Path

from finetune.choices import AUTO_ENCODING
from finetune.data.image_files import file_exists, is_folder, open_file
from finetune.data.table import Table
from finetune.data.table.encoding import decode_text
from finetune.errors import DataError
from finetune.text import counted, printable

_IMAGES, _LABELS, _NAMES, _SPLIT = (
    "images.txt",
    "image_class_labels.txt",
    "classes.txt",
    "train_test_split.txt",
)


def lists_folder(path: Path) -> Path | None:
    """Return the folder of such lists: the path itself, or where it is one of the lists; None otherwise."""
    folder = path if is_folder(path) else path.parent
    if folder != path and path.name not in (_IMAGES, _LABELS, _NAMES, _SPLIT):
        return None
    return folder if all(file_exists(folder / name) for name in (_IMAGES, _LABELS)) else None


def read_numbered_lists(folder: Path) -> Table:
    """Return the lists in a folder as one table.

    Raises:
        DataError: lists that do not fit each other.
    """
    images, labels = _read(folder / _IMAGES), _read(folder / _LABELS)
    names = _read(folder / _NAMES) if file_exists(folder / _NAMES) else {}
    splits = _read(folder / _SPLIT) if file_exists(folder / _SPLIT) else {}
    below = "images/" if is_folder(folder / "images") else ""
    faults = [f"{_LABELS} has no class of image {number}" for number in images if number not in labels]
    faults += [f"{_NAMES} has no class {label}" for label in sorted({*labels.values()} - {*names}) if names]
    for number, split in splits.items():
        faults += [f"{_SPLIT} has {split!r} for image {number}; expected 1 or 0"] if split not in "01" else []
    faults += [f"{_SPLIT} says nothing of image {n}" for n in images if splits and n not in splits]
    if faults:
        more = f" ({counted(len(faults), 'fault')} in all)" if len(faults) > 1 else ""
        raise DataError(f"{printable(str(folder))}: {printable(faults[0])}{more}.\nRepair the list.")
    rows = tuple(
        (f"{below}{image}", names.get(labels[number], labels[number]), "train" if split == "1" else "test")
        for number, image in images.items()
        for split in (splits.get(number, "1"),)
    )
    files = [_IMAGES, _LABELS, *([_NAMES] if names else []), *([_SPLIT] if splits else [])]
    return Table(
        folder / _IMAGES,
        ("image", "label", "split"),
        rows,
        tuple(range(1, len(rows) + 1)),
        notes=(f"joined by number: {', '.join(files)}",),
    )


def _read(path: Path) -> Mapping[str, str]:
    """Return what stands behind the number on each line of a list."""
    with open_file(path) as file:
        text, _ = decode_text(path, file.read(), AUTO_ENCODING, "strict")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key, _, rest = line.strip().partition(" ")
        if line.strip() and (not rest.strip() or key in found):
            raise DataError(
                f"{printable(str(path))}:{number}: {printable(line[:60])!r} is not a number of its own and "
                "what belongs to it; expected `1 text` on each line."
            )
        if rest:
            found[key] = rest.strip()
    return found
