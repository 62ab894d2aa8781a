"""Which folders of a data set hold the training, validation and test images, by their names.

Folders called `train`, `Validation` or `TESTING` can be splits, or classes of their own (train, bus, car).
Reading splits as classes is the worst mistake: it trains a model that tells `train` from `val`, without an
error. So what names and contents do not settle is refused, and the message names what settles it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune.choices import SPLITS, Split
from finetune.data.data_layout import ANYHOW, FolderOptions
from finetune.data.indexing.find_images import holds_images, list_folders
from finetune.data.indexing.split_names import is_named_alike, splits_by_name, words_of_splits
from finetune.errors import DataError
from finetune.text import printable, quoted

_WORDS: Mapping[Split, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class SplitFolders:
    """The folders of a data set that hold splits; none of them where the data set is class folders."""

    folders: Mapping[Split, str]
    """folder of each split that there is; empty if the root holds class folders"""
    unused: tuple[str, ...] = ()
    """other folders beside them"""


def find_split_folders(root: Path, val: str | None, options: FolderOptions = ANYHOW) -> SplitFolders:
    """Find the folders of the splits in a data set.

    Args:
        root: folder of the data set.
        val: the folder that the config names for validation; None to find it by its name.
        options: what the folders are, where the config says so.

    Raises:
        DataError: names that contradict each other or `val`, or that can be read in two ways.
    """
    names = list_folders(root)
    if isinstance(options.layout, Mapping):
        return _as_said(root, options.layout, names, val)
    splits = splits_by_name(names)
    if options.layout == "classes" and val is None:
        return SplitFolders({})
    if val is not None:
        return _named_val(root, _plain(val), names, splits)
    if not splits:
        if options.layout == "auto":
            _refuse_words_of_splits(root, names)
        return SplitFolders({})
    others = [name for name in names if name not in splits]
    kinds = set(splits.values())
    if {"train", "val"} <= kinds:
        return SplitFolders(_one_of_each(root, splits), tuple(others))
    classes = [name for name in others if not is_named_alike(name, splits) and holds_images(root / name)]
    if "train" in kinds and (not classes or options.label_pattern is not None):
        return SplitFolders(_one_of_each(root, splits), tuple(others))
    if len(splits) == 1 and "train" in kinds and not list_folders(root / next(iter(splits))):
        return SplitFolders({})  # images of a class that is called so: train, bus, car
    raise _doubtful(root, splits, classes)


def find_evaluated_folder(
    root: Path, class_names: Sequence[str], split: Split, options: FolderOptions = ANYHOW
) -> str:
    """Return the folder of a split in a data set to evaluate on; empty if the root holds class folders.

    The classes of the model settle what is refused in training: folders of theirs are class folders.

    Args:
        root: folder of the data set.
        class_names: the classes that the model knows, of which one may be called `train`.
        split: the split whose folder is wanted.
        options: how the folder was read that the model was trained on.

    Raises:
        DataError: folders of splits, and not exactly one of them of this split.
    """
    names = list_folders(root)
    splits = splits_by_name(names)
    if any(name in class_names and (name not in splits or not list_folders(root / name)) for name in names):
        return ""
    if isinstance(options.layout, Mapping) and options.layout.get(split) in names:
        return _plain(options.layout[split])
    if not splits:
        return ""
    fitting = [name for name, of in splits.items() if of == split]
    if len(fitting) != 1:
        raise DataError(
            f"{printable(str(root))} holds {quoted(splits)} and {'two folders' if fitting else 'none'} of "
            f"{split} images.\nName one of its folders, or choose with --split."
        )
    return unwrapped(root, fitting[0])


def unwrapped(root: Path, folder: str) -> str:
    """Return the folder itself, or the one of the same name that is alone in it.

    Archives unpacked into a folder of their name leave `train/train` and `seg_train/seg_train`.
    """
    (*_, last), entries = folder.split("/"), list_folders(root / folder)
    if len(entries) == 1 and entries[0].casefold() == last.casefold():
        return f"{folder}/{entries[0]}"
    return folder


def _as_said(root: Path, folders: Mapping[Split, str], names: Sequence[str], val: str | None) -> SplitFolders:
    """Return the folders that `data.layout` names."""
    where = printable(str(root))
    if val is not None:
        raise DataError(f"data.val: {val!r} names a folder, and so does data.layout; leave out data.val.")
    said: dict[Split, str] = {split: _plain(name) for split, name in folders.items()}
    for split, name in said.items():
        if name not in names:
            raise DataError(
                f"data.layout: no folder {name!r} for {split} in {where}; there is {quoted(names) or 'none'}."
            )
    return SplitFolders(said, tuple(name for name in names if name not in said.values()))


def _plain(name: str) -> str:
    """Drop what makes no other folder of a name: `./val`, `val/`."""
    return str(PurePosixPath(name))


def _named_val(root: Path, val: str, names: Sequence[str], splits: Mapping[str, Split]) -> SplitFolders:
    where = printable(str(root))
    if val not in names:
        raise DataError(f"data.val: no folder {val!r} in {where}; there is {quoted(names) or 'none'}.")
    if splits.get(val) in ("train", "test"):
        raise DataError(
            f"data.val: {val!r} is the folder of the {_WORDS[splits[val]]} images in {where}; an image "
            "may be in one split only.\nWrite data.val: 0.2 to hold out a part of the training images, or "
            "rename the folder if it holds validation images."
        )
    folders = _one_of_each(
        root, {name: split for name, split in splits.items() if split != "val" and name != val}
    )
    if "train" not in folders:
        raise DataError(f"data.val: {val!r} needs a folder 'train' beside it; {where} holds none.")
    used = {*folders.values(), val}
    return SplitFolders({**folders, "val": val}, tuple(name for name in names if name not in used))


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


def _refuse_words_of_splits(root: Path, names: Sequence[str]) -> None:
    """Refuse folders such as `old_train` and `new_test`, which hold words of splits and differ in others."""
    alike = words_of_splits(names)
    if "train" not in alike.values() or len(set(alike.values())) == 1:
        return
    train = next(name for name, split in alike.items() if split == "train")
    raise DataError(
        f"{printable(str(root))} holds {quoted(alike)}, which look like splits, but differ in other words.\n"
        f"Write data.layout: {_mapping(alike)} if they are, data.layout: classes if they are classes, or set "
        f"data.path to {printable(str(root / train))} to train on that folder alone."
    )


def _mapping(splits: Mapping[str, Split]) -> str:
    """Write folders of splits as the value of `data.layout`."""
    folder_of: dict[Split, str] = {}
    for name, split in splits.items():
        folder_of.setdefault(split, name)
    return printable(
        f"{{{', '.join(f'{split}: {folder_of[split]}' for split in SPLITS if split in folder_of)}}}"
    )


def refuse_splits_below(train: Path) -> None:
    """Refuse splits one folder further down, as unpacking an archive `train.zip` leaves them: `train/train`.

    Raises:
        DataError: the folder of training images holds splits instead of classes.
    """
    splits = splits_by_name(list_folders(train))
    if "train" in splits.values() and len(set(splits.values())) > 1:
        where = printable(str(train))
        raise DataError(
            f"{where} holds {quoted(splits)}, named like splits, instead of class folders.\n"
            f"Set data.path to {where}, or rename the folders if they are classes."
        )


def _doubtful(root: Path, splits: Mapping[str, Split], classes: Sequence[str]) -> DataError:
    where, train = printable(str(root)), [name for name, split in splits.items() if split == "train"]
    alone = f"et data.path to {printable(str(root / [*train, *splits][0]))} to train on that folder alone"
    if not classes:
        return DataError(
            f"{where} holds {quoted(splits)} and no folder of training images.\nPut the class folders to "
            f"train on into a folder 'train' beside it, s{alone}, or write data.layout: {{train: FOLDER}}."
        )
    folder = next(iter(train), None)
    alike = [name for name in classes if folder and _hold_the_same(root, folder, name)]
    worded = words_of_splits([*splits, *classes])
    if not train and "train" in worded.values():
        alone = f"{alone}, write data.layout: {_mapping(worded)} if they are splits"
    val = f"Name the folder of validation images (data.val: {printable(alike[0])}), s" if alike else "S"
    left_out = (
        f", leave {quoted(classes)} out (data.layout: {_mapping(splits)})"
        if train and len(splits) > 1
        else ""
    )
    return DataError(
        f"{where} holds {quoted(splits)}, named like {'splits' if len(splits) > 1 else 'a split'}, beside "
        f"{quoted(classes)}.\n{val}{alone}{left_out}, or write data.layout: classes if {quoted(splits)} "
        f"{'are classes' if len(splits) > 1 else 'is a class'}."
    )


def _hold_the_same(root: Path, one: str, other: str) -> bool:
    """Tell whether two folders hold folders of the same name, as those of two splits do."""
    return bool({*list_folders(root / unwrapped(root, one))} & {*list_folders(root / unwrapped(root, other))})
