"""Go through XML from outside: element by element, without document types, which could name other files."""

from collections.abc import Mapping
from typing import Protocol
from xml.parsers.expat import ExpatError, ParserCreate


class Elements(Protocol):
    """What takes the elements of a file, in their order."""

    def begin(self, name: str, attributes: Mapping[str, str]) -> None:
        """Take the beginning of an element."""

    def end(self, name: str) -> None:
        """Take the end of an element."""

    def add(self, text: str) -> None:
        """Take text of an element, or a part of it."""


def read_elements(content: bytes, elements: Elements) -> None:
    """Hand the elements of a file to what takes them.

    Raises:
        ValueError: it is no XML, or has a document type; or what `elements` raises.
    """
    parser = ParserCreate()
    parser.StartElementHandler = elements.begin
    parser.EndElementHandler = elements.end
    parser.CharacterDataHandler = elements.add
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(content, True)
    except ExpatError as error:
        raise ValueError(f"no XML ({error})") from None


def _refuse(*_: object) -> None:
    raise ValueError("it has a document type, which is not read")
