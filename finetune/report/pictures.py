"""The pictures of a report page, and how many of them it has room for."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

from finetune.report.thumbnails import encoded


class AnsweredImage(NamedTuple):
    """An image with what a model says of it."""

    name: str
    label: str
    """its class; of several the names in one text"""
    answer: str
    """what the model says, likewise"""
    certainty: float
    """the calibrated probability of that answer, 0–1"""
    thumbnail: Image.Image
    heat: Image.Image | None = None
    """where the model finds what speaks for its answer"""


class WrongLabel(NamedTuple):
    """A class that was missed, or given wrongly, where an image may have several."""

    name: str
    missed: bool
    """whether images that have the class are not given it; else the other way round"""
    images: int
    """how many"""
    shown: Sequence[AnsweredImage]
    """some of them; `certainty` is the probability of the class"""


@dataclass(frozen=True)
class Pictures:
    """What a page shows of the images that a model was scored on."""

    mistakes: Sequence[AnsweredImage] = ()
    """the surest first"""
    close: Sequence[AnsweredImage] = ()
    """right, the least sure first"""
    doubtful: Sequence[AnsweredImage] = ()
    """whose label is doubtful, the most doubtful first; `answer` is the likely class"""
    doubted: int = 0
    """how many labels are doubtful in all"""
    cells: Mapping[tuple[int, int], Sequence[AnsweredImage]] = field(default_factory=dict)
    """some of each cell of the confusion matrix (true class, predicted class)"""
    wrong_labels: Sequence[WrongLabel] = ()
    """the most frequent first"""
    heat: str = ""
    """at which layer the heat maps look, or why there are none"""


class Album:
    """Encodes pictures for a page until it is full; what comes first on the page is drawn first."""

    def __init__(self, room: int) -> None:
        """Take pictures of so many bytes in all, as base64."""
        self._room = room
        self.left_out = 0

    def draw(self, image: Image.Image) -> str:
        """Return a picture as the address of an `<img>`; empty where the page has no room for it."""
        content = encoded(image)
        if len(content) > self._room:
            self.left_out += 1
            return ""
        self._room -= len(content)
        return f"data:image/jpeg;base64,{content}"

    def png(self, content: bytes) -> str:
        """Return a PNG file likewise."""
        if len(content) * 4 // 3 > self._room:
            self.left_out += 1
            return ""
        self._room -= len(content) * 4 // 3
        return f"data:image/png;base64,{b64encode(content).decode()}"

    def cell(self, images: Sequence[AnsweredImage]) -> Iterator[tuple[AnsweredImage, str]]:
        """Return those of some images that the page has room for, with their addresses."""
        for image in images:
            address = self.draw(image.thumbnail)
            if address:
                yield image, address
