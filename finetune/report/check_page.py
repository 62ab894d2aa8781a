"""The page of what `finetune check` has found: thumbnails, and a choice for each image to leave it out."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from finetune.report.templates import load_template
from finetune.report.thumbnails import encoded
from finetune.text import printable, protect_cell


@dataclass(frozen=True)
class FoundImage:
    """One image of the page."""

    name: str
    split: str
    label: str
    """its class; of several the names in one text"""
    drop: bool
    """whether it is proposed to leave it out"""
    thumbnail: Image.Image | None
    """None where it cannot be read"""
    address: str = ""
    """of the file, as a link; empty where there is none"""


@dataclass(frozen=True)
class FoundItem:
    """An image, or several that belong together, and what is said of just these."""

    images: Sequence[FoundImage]
    detail: str


@dataclass(frozen=True)
class Section:
    """One finding."""

    level: str
    kind: str
    message: str
    advice: str
    items: Sequence[FoundItem] = ()
    not_shown: int = 0
    """images beyond those of `items`"""


@dataclass(frozen=True)
class CheckPage:
    """What the page shows."""

    title: str
    images: int
    """of the whole data set"""
    layout: str
    """what the data were taken for; may be empty"""
    sections: Sequence[Section]
    """gravest first"""
    header: Sequence[str]
    """of the table that the page can write"""
    others: Sequence[Sequence[str]] = ()
    """rows of that table for images that are not on the page"""


def check_page(page: CheckPage) -> str:
    """Render the page; it needs no other file and no network, and every name in it is escaped."""
    text: str = load_template("check.html").render(
        page=page,
        shown=printable,
        cell=protect_cell,
        thumbnail=encoded,
        data={"header": list(page.header), "others": [list(map(protect_cell, row)) for row in page.others]},
    )
    return text.encode("utf-8", "replace").decode()  # names of files may hold bytes that are no text
