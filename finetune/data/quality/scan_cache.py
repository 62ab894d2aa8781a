"""Remember which images were good, so that only new and changed files are decoded again.

A small JSON file for each data set, in the cache folder of the user's system. It only saves time: a file that
is damaged, or a folder that cannot be written, is ignored without a word.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import PIL

from finetune.data.image_files import size_and_time
from finetune.data.images import ImageInfo, ImageLimits
from finetune.machine.cache import SCANS, cache_folder, read_cached_object, write_cached


class ScanMemory:
    """Facts of good images by name, valid while a file's size and modification time stay."""

    def __init__(self, root: Path, limits: ImageLimits) -> None:
        # Another Pillow, or other limits, may judge another way.
        key = "\0".join(("1", PIL.__version__, repr(limits), os.path.realpath(root)))
        digest = hashlib.blake2b(os.fsencode(key), digest_size=16).hexdigest()
        self._file = cache_folder() / SCANS / f"{digest}.json"
        self._known: dict[str, list[Any]] = read_cached_object(self._file)
        self._changed = False

    def recall(self, name: str, path: str | Path) -> ImageInfo | None:
        """Return what is known of a file if it has not changed."""
        match self._known.get(name):
            case [int(size), int(modified), int(width), int(height), bool(animated)]:
                return ImageInfo(width, height, animated) if (size, modified) == _stamp(path) else None
        return None

    def remember(self, name: str, path: str | Path, info: ImageInfo) -> None:
        """Note a good file."""
        stamp = _stamp(path)
        if stamp is not None:
            self._known[name] = [*stamp, info.width, info.height, info.animated]
            self._changed = True

    def save(self) -> None:
        """Write what was learned, whole or not at all."""
        if self._changed:
            write_cached(self._file, json.dumps(self._known).encode())


def _stamp(path: str | Path) -> tuple[int, int] | None:
    try:
        return size_and_time(path)
    except OSError:
        return None
