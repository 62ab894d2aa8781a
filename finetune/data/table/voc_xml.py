"""Read what an annotation in the format of Pascal VOC says is in an image: one XML file for each.

Nothing outside the file is looked at: a document type, which may define entities or name other files, is
refused, so that what is read is no longer than the file.
"""

from typing import NamedTuple

from finetune.data.table.xml_events import read_elements

_DEEPEST = 32


class VocObjects(NamedTuple):
    """The objects of one annotation."""

    names: tuple[str, ...]
    """their classes, each once, in order"""
    difficult: int
    """objects that are marked as difficult, and count for nothing"""


def read_voc(content: bytes) -> VocObjects:
    """Return the names of the objects in an annotation.

    Raises:
        ValueError: it is no XML, has a document type, or is no annotation of VOC.
    """
    reader = _Reader()
    read_elements(content, reader)
    if reader.root != "annotation":
        raise ValueError(f"its first element is {reader.root[:40]!r}, not 'annotation' as in Pascal VOC")
    return VocObjects(tuple(reader.names), reader.difficult)


class _Reader:
    """What was read so far; parts of objects, such as a head, are not looked at."""

    def __init__(self) -> None:
        self.root = ""
        self.names: dict[str, None] = {}
        self.difficult = 0
        self._path: list[str] = []
        self._text: list[str] = []
        self._object: dict[str, str] = {}

    def begin(self, name: str, _: object) -> None:
        self.root = self.root or name
        self._path.append(name)
        self._text = []
        if len(self._path) > _DEEPEST:
            raise ValueError("nested too deeply")
        if self._path == ["annotation", "object"]:
            self._object = {}

    def add(self, text: str) -> None:
        self._text.append(text)

    def end(self, name: str) -> None:
        if self._path[:-1] == ["annotation", "object"]:
            self._object[name] = "".join(self._text).strip()
        elif self._path == ["annotation", "object"]:
            self._note_object()
        self._path.pop()
        self._text = []

    def _note_object(self) -> None:
        if self._object.get("difficult", "0") not in ("", "0"):
            self.difficult += 1
        elif name := self._object.get("name"):
            self.names[name] = None
