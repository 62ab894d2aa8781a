"""What a builder noticed, returned as a value: only a command knows where a person reads it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something to report to the user."""

    text: str
    """One line, or several."""
    warning: bool = False
    """Whether the user should not miss it."""


def as_warnings(texts: Iterable[str]) -> list[Note]:
    """Return texts as notes that the user should not miss."""
    return [Note(text, warning=True) for text in texts]
