"""The page of doubtful labels: thumbnails by pair of classes, and a choice for each that becomes a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image

from finetune.report.templates import load_template
from finetune.report.thumbnails import encoded
from finetune.text import printable, protect_cell

MOST_SHOWN = 300
"""images of a page: it stays at a few megabytes"""

_MOST_CLASSES = 200  # of which every image offers the choice


@dataclass(frozen=True)
class DoubtfulImage:
    """One image of the page."""

    name: str
    split: str
    label: str
    """its class; of several the names in one text"""
    likely: str
    doubt: float
    """0–1"""
    flagged: bool
    decision: str
    """what was decided of it before: keep, drop or a class"""
    thumbnail: Image.Image
    address: str = ""
    """of the file, as a link; empty where there is none"""


@dataclass(frozen=True)
class LabelsPage:
    """What the page shows."""

    title: str
    images: Sequence[DoubtfulImage]
    """most doubtful first"""
    all_images: int
    doubtful: int
    """images whose likely class is another; those that are most doubtful are shown"""
    flagged: int
    class_names: Sequence[str]
    header: Sequence[str]
    """of the table that the page can write"""
    others: Sequence[Sequence[str]] = ()
    """rows of that table for images that are not on the page, and are not kept as they are"""
    alike: Sequence[Sequence[tuple[str, str]]] = ()
    """groups of the same image with different labels: name and label of each"""
    several: bool = False


def labels_page(page: LabelsPage) -> str:
    """Render the page; it needs no other file and no network, and every name in it is escaped."""
    classes = () if page.several else page.class_names[:_MOST_CLASSES]
    pairs: dict[tuple[str, str], list[DoubtfulImage]] = {}
    for image in page.images:
        pairs.setdefault((image.label, image.likely), []).append(image)
    text: str = load_template("labels.html").render(
        page=page,
        pairs=[(*pair, images) for pair, images in pairs.items()],
        shown=printable,
        cell=protect_cell,
        choice=partial(_choice, several=page.several),
        thumbnail=encoded,
        data={
            "header": list(page.header),
            "others": [list(map(protect_cell, row)) for row in page.others],
            "classes": [choice for name in classes if (choice := _choice(name, several=False))],
        },
    )
    return text.encode("utf-8", "replace").decode()  # names of files may hold bytes that are no text


def _choice(name: str, *, several: bool) -> str:
    """Return the decision for some classes; empty for one called `keep` or `drop`, which mean others."""
    if not name:
        return "none" if several else ""
    return "" if name.casefold() in ("keep", "drop") else protect_cell(name)
