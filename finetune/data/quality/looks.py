"""Looks at very many images, in columns."""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import astuple, fields
from sys import intern

from finetune.data.images import THUMBNAIL_SIDE, ImageInfo, Look
from finetune.data.images.appearance import Appearance

_PIXELS = THUMBNAIL_SIDE**2
_JUDGED = len(fields(Appearance))  # all of them numbers


class Looks(Mapping[str, Look]):
    """A look at each of some images by name.

    A `Look` is a dozen objects; here one takes its thumbnail of 256 bytes and some 60 more beside its place
    in a dictionary, and is put together when it is asked for.
    """

    def __init__(self) -> None:
        """Begin without an image."""
        self._rows: dict[str, int] = {}
        self._thumbnails = bytearray()
        self._sizes, self._animated, self._judged = array("i"), bytearray(), array("d")
        self._modes: list[str] = []
        self._cameras: list[str] = []

    def add(self, name: str, look: Look) -> None:
        """Add a look at an image that was not looked at before."""
        self._thumbnails += look.thumbnail
        self._sizes.extend((look.info.width, look.info.height))
        self._animated.append(look.info.animated)
        self._judged.extend(astuple(look.appearance))
        self._modes.append(intern(look.mode))
        self._cameras.append(intern(look.camera))
        self._rows[name] = len(self._rows)

    def __getitem__(self, name: str) -> Look:
        """Return the look at an image."""
        row = self._rows[name]
        width, height = self._sizes[2 * row : 2 * row + 2]
        return Look(
            ImageInfo(width, height, bool(self._animated[row])),
            self._modes[row],
            bytes(self._thumbnails[_PIXELS * row : _PIXELS * (row + 1)]),
            Appearance(*self._judged[_JUDGED * row : _JUDGED * (row + 1)]),
            self._cameras[row],
        )

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order in which they were added."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Count the images."""
        return len(self._rows)
