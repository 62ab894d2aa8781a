"""Which folders of a data set hold the training, validation and test images, by their names.

Folders called `train`, `Validation` or `TESTING` can be splits, or classes of their own (train, bus, car).
Taking splits for classes is the worst mistake: it trains a model that tells `train` from `val`, without an
error. So what names and contents do not settle is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune.choices import SPLIT_NAMES, Split
from finetune.data.indexing.find_images import find_images, list_folders
from finetune.errors import DataError
from finetune.text import printable, quoted


@dataclass(frozen=True)
class SplitFolders:
    """The folders of a data set that hold splits; none of them where the data set is class folders."""

    folders: Mapping[Split, str]
    """folder of each split that there is; empty if the root holds class folders"""
    unused: tuple[str, ...] = ()
    """other folders beside them"""


def split_of(name: str) -> Split | None:
    """Return the split that a folder or cell of this name stands for, in any case; None for other names."""
    return SPLIT_NAMES.get(name.strip().casefold())


def find_split_folders(root: Path, val: str | None) -> SplitFolders:
    """Find the folders of the splits in a data set.

    Args:
        root: folder of the data set.
        val: the folder that the config names for validation; None to find it by its name.

    Raises:
        DataError: names that contradict each other or `val`, or that can be read in two ways.
    """
    names = list_folders(root)
    splits = {name: split for name in names if (split := split_of(name)) is not None}
    if val is not None:
        return _named_val(root, _plain(val), names, splits)
    if not splits:
        return SplitFolders({})
    others = [name for name in names if name not in splits]
    classes = [name for name in others if find_images(root, name).images]
    kinds = set(splits.values())
    if "train" in kinds and ("val" in kinds or not classes):
        return SplitFolders(_one_of_each(root, splits), tuple(others))
    if len(splits) == 1 and kinds == {"train"} and not list_folders(root / next(iter(splits))):
        return SplitFolders({})  # images of a class that is called so: train, bus, car
    raise _doubtful(root, list(splits), classes)


def _plain(name: str) -> str:
    """Drop what makes no other folder of a name: `./val`, `val/`."""
    return str(PurePosixPath(name))


def _named_val(root: Path, val: str, names: Sequence[str], splits: Mapping[str, Split]) -> SplitFolders:
    where = printable(str(root))
    if val not in names:
        raise DataError(f"data.val: no folder {val!r} in {where}; there is {quoted(names) or 'none'}.")
    others = {name: split for name, split in splits.items() if split != "val" and name != val}
    folders = _one_of_each(root, others)
    if splits.get(val) in ("train", "test"):
        raise DataError(
            f"data.val: {val!r} is the folder of the {_WORDS[splits[val]]} images in {where}; an image "
            "may be in one split only.\nWrite data.val: 0.2 to hold out a part of the training images, or rename "
            "the folder if it holds validation images."
        )
    if "train" not in folders:
        raise DataError(f"data.val: {val!r} needs a folder 'train' beside it; {where} holds none.")
    used = {*folders.values(), val}
    return SplitFolders({**folders, "val": val}, tuple(name for name in names if name not in used))


_WORDS: Mapping[Split, str] = {"train": "training", "val": "validation", "test": "test"}


def _one_of_each(root: Path, splits: Mapping[str, Split]) -> dict[Split, str]:
    """Return the folder of each split, refusing two folders for one."""
    folders: dict[Split, str] = {}
    for name, split in splits.items():
        other = folders.setdefault(split, name)
        if other != name:
            choose = "name one of them in data.val" if split == "val" else "join them, or rename one"
            raise DataError(
                f"{printable(str(root))} holds two folders of {_WORDS[split]} images, "
                f"{quoted([other, name])}; {choose}."
            )
    return folders


def _doubtful(root: Path, splits: Sequence[str], classes: Sequence[str]) -> DataError:
    where = printable(str(root))
    if not classes:
        return DataError(
            f"{where} holds {quoted(splits)} and no folder of training images.\nPut the class folders to "
            "train on into a folder 'train' beside it, or rename the folders if they are classes."
        )
    return DataError(
        f"{where} holds {quoted(splits)}, called like a split, beside {quoted(classes)}.\n"
        f"If {quoted(splits)} is a class, rename it; if not, put the class folders to train on into a folder "
        "'train'."
    )
