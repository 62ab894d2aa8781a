"""Digests of what files hold, without reading again those that have not changed.

A file counts as unchanged while its size and both of its times stay (the time of a change of content can be
set back, that of a change of the entry cannot), unless these are so recent that another change might have
left them as they are.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.data.image_files import SETTLED, digest_file, file_status
from finetune.machine.cache import DIGESTS, cache_folder, read_cached_object, write_cached
from finetune.machine.cores import in_threads


class Content(NamedTuple):
    """What a file held when it was looked at."""

    stamp: tuple[int, int, int]
    """size, time of the last change of the content and of the entry, in nanoseconds"""
    settled: bool
    """whether another change would have shown in its stamp"""
    digest: str
    """of its content, as `digest_file` gives it"""


class ContentDigests:
    """Digests of the files of a data set, remembered in the cache folder."""

    def __init__(self, root: Path) -> None:
        """Read what is remembered of the files below a folder."""
        key = hashlib.blake2b(os.fsencode("1\0" + os.path.realpath(root)), digest_size=16).hexdigest()
        self._root, self._folder = root, str(root)
        self._file = cache_folder() / DIGESTS / f"{key}.json"
        self._known, self._changed = read_cached_object(self._file), False

    def take(self, names: Sequence[str]) -> list[Content | None]:
        """Return what each file holds; None for one that cannot be read."""
        taken = [content for _, content in in_threads(self.look, names)]
        self.save()
        return taken

    def look(self, name: str) -> Content | None:
        """Return what a file holds; None if it cannot be read, or changes meanwhile."""
        content = self._take(name)
        if content is not None and content.settled and self._recalled(name) != content:
            self._known[name] = [*content.stamp, content.digest]
            self._changed = True
        return content

    def save(self) -> None:
        """Remember what was seen."""
        if self._changed:
            write_cached(self._file, json.dumps(self._known).encode())
            self._changed = False

    def still(self, name: str, content: Content) -> bool:
        """Tell whether a file holds what it did, and has in between."""
        path = self._root / name
        if _stamp(path) != content.stamp:
            return False
        return content.settled or _look(path) == content.digest

    def _take(self, name: str) -> Content | None:
        path = os.path.join(self._folder, name)
        stamp, known = _stamp(path), self._recalled(name)
        if stamp is None:
            return None
        if known is not None and known.stamp == stamp:
            return known
        settled = max(stamp[1:]) + SETTLED < time.time_ns()  # before it is read
        digest = _look(path)
        return None if digest is None or _stamp(path) != stamp else Content(stamp, settled, digest)

    def _recalled(self, name: str) -> Content | None:
        match self._known.get(name):
            case [int(size), int(changed), int(entry), str(digest)]:
                return Content((size, changed, entry), True, digest)
        return None


def _look(path: str | Path) -> str | None:
    try:
        return digest_file(path)
    except OSError:
        return None


def _stamp(path: str | Path) -> tuple[int, int, int] | None:
    try:
        status = file_status(path)
    except OSError:
        return None
    return status.size, status.modified, status.changed
