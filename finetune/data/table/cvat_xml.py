"""Read an annotation file of CVAT ("CVAT for images"): the classes of all images in one XML file.

Tags of whole images count alone where there are any; else what is marked in an image, as of COCO. A document
type is refused, so that nothing but the file is read.
"""

from collections.abc import Mapping
from typing import NamedTuple

from finetune.data.table.xml_events import read_elements

_DEEPEST = 32
_MARKS = ("box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton")


class CvatImage(NamedTuple):
    """What is said of one image."""

    name: str
    subset: str
    """the split that the project puts it in, or empty"""
    tags: tuple[str, ...]
    """labels of the whole image"""
    marks: tuple[str, ...]
    """labels of what is marked in it"""


def read_cvat(content: bytes) -> list[CvatImage]:
    """Return the images of an annotation file.

    Raises:
        ValueError: it is no XML, has a document type, or is none of CVAT for images.
    """
    reader = _Reader()
    read_elements(content, reader)
    if not reader.images:
        what = "tracks of a video" if reader.tracks else "no images"
        raise ValueError(f"it has {what}; expected annotations and images, as in CVAT for images")
    return reader.images


class _Reader:
    """What was read so far."""

    def __init__(self) -> None:
        self.images: list[CvatImage] = []
        self.tracks = False
        self._path: list[str] = []
        self._image: Mapping[str, str] = {}
        self._tags: dict[str, None] = {}
        self._marks: dict[str, None] = {}

    def begin(self, name: str, attributes: Mapping[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > _DEEPEST:
            raise ValueError("nested too deeply")
        if self._path[0] != "annotations":
            raise ValueError(f"its first element is {name[:40]!r}, not 'annotations' as in CVAT")
        if self._path == ["annotations", "image"]:
            self._image, self._tags, self._marks = attributes, {}, {}
        elif self._path == ["annotations", "track"]:
            self.tracks = True
        elif self._path[:-1] == ["annotations", "image"] and (label := attributes.get("label")):
            if name == "tag":
                self._tags[label] = None
            elif name in _MARKS:
                self._marks[label] = None

    def end(self, name: str) -> None:
        if self._path == ["annotations", "image"] and self._image.get("name"):
            image = self._image
            marks = tuple(self._marks)
            self.images.append(CvatImage(image["name"], image.get("subset", ""), tuple(self._tags), marks))
        self._path.pop()

    def add(self, text: str) -> None:
        """Pass over text: all that counts stands in attributes."""
