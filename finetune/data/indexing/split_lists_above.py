"""Say of class folders that a list beside their folder splits their images, as `images/` of CUB-200-2011."""

from collections.abc import Sequence
from pathlib import Path
from posixpath import splitext

from finetune.data.image_files import file_exists, is_folder
from finetune.data.indexing.numbered_lists import lists_folder
from finetune.data.indexing.split_tables import first_words, split_lists
from finetune.errors import DataError
from finetune.text import printable


def split_list_above(root: Path, images: Sequence[str]) -> list[str]:
    """Return what to say of a list in the folder above that splits these images, if there is one.

    Args:
        root: the folder of the images.
        images: their POSIX paths, relative to it.
    """
    above = root.parent
    try:
        lists = [str(above / name) for name in split_lists(above)]
        if lists_folder(above) is not None and file_exists(above / "train_test_split.txt"):
            lists = [str(above / "images.txt"), *lists]
    except (DataError, OSError):  # a folder that nobody may list
        return []
    stems = {splitext(name)[0] for name in images} if lists else set()
    for path in lists:
        if any(stem in stems for stem in _first_words(Path(path), root.name)):
            splits = above / "train_test_split.txt" if path.endswith("images.txt") else Path(path)
            return [
                f"{printable(str(splits))} splits these images; here a part of each class is held out; "
                f"to split them likewise: data.path: {printable(str(above))}"
            ]
    return []


def _first_words(path: Path, folder: str) -> list[str]:
    """Return the words that a list begins with as paths in a folder without endings."""
    if is_folder(path):
        return []
    words = [splitext(word)[0] for word in first_words(path) if "/" in word]
    return [word.removeprefix(f"{folder}/") for word in words]
