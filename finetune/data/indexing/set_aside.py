"""Tell masks and other annotations that are images themselves from the images that they belong to.

Segmentation data has `images/1.png` and `masks/1.png`, or `1.png` and `1_mask.png`, in one class folder.
"""

import re
from collections.abc import Collection, Sequence
from posixpath import basename, dirname, splitext

# fmt: off
COLLECTIONS = frozenset((
    "images", "image", "imgs", "img", "jpegimages", "jpegs", "jpeg", "jpgs", "jpg", "pngs", "png",
))
"""what folders of all images are called, as `plain_folder` writes it"""
ANNOTATIONS = frozenset((
    "annotations", "annotation", "annots", "anno", "ann", "labels", "masks", "mask", "groundtruth", "gt",
    "trimaps",
    "trimap", "segmentations", "segmentation", "segmentationclass", "segmentationobject", "seg", "xmls",
    "xml", "boxes", "bboxes", "meta", "metadata",
))
# fmt: on
"""what folders are called of files that say something of images"""

_WORDS = ("mask", "segm", "truth", "trimap", "_gt", "_seg", "_label", "/gt/", "/seg/", "/labels/", "annot")
_ENDING = re.compile(
    r"[-_ ](masks?|segmentation|seg|gt|groundtruth|labels?|trimap)([-_]?\d+)?$", re.IGNORECASE
)


def plain_folder(name: str) -> str:
    """Return the name of a folder as the lists of names have it."""
    return re.sub(r"[-_ ]", "", name.casefold())


def annotation_images(names: Sequence[str]) -> frozenset[str]:
    """Return the images that are masks of others by their names, or by those of their folders.

    Args:
        names: POSIX paths of all images of a part.
    """
    text = "\n".join(names).casefold()
    if not any(word in text for word in _WORDS):  # of a million names at once
        return frozenset()
    known = {splitext(name)[0] for name in names}
    aside = _annotation_folders(set(map(dirname, names)))
    return frozenset(name for name in names if dirname(name) in aside or _is_mask(name, known))


def _annotation_folders(folders: Collection[str]) -> set[str]:
    """Return the folders in or below one such as `masks` that has one such as `images` beside it."""
    above = {folder: _ways_down(folder) for folder in folders}
    every = {way for ways in above.values() for way in ways}
    collections = {dirname(way) for way in every if plain_folder(basename(way)) in COLLECTIONS}
    return {
        folder
        for folder, ways in above.items()
        if any(plain_folder(basename(way)) in ANNOTATIONS and dirname(way) in collections for way in ways[1:])
    }


def _ways_down(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def _is_mask(name: str, known: set[str]) -> bool:
    stem = splitext(name)[0]
    return (end := _ENDING.search(stem)) is not None and stem[: end.start()] in known
