"""Remember which images were good, so that only new and changed files are decoded again.

A small JSON file for each data set, in the cache folder of the user's system. It only saves time: a file that
is damaged, or a folder that cannot be written, is ignored without a word. It holds columns, and files are
asked for by hundreds: of very many images, what Python does for each takes longer than the system does.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import PIL

from finetune.data.image_files import size_and_time
from finetune.data.images import ImageInfo, ImageLimits
from finetune.machine.cache import SCANS, cache_folder, read_cached_object, write_cached
from finetune.machine.cores import in_threads

_COLUMNS = {"name": str, "size": int, "modified": int, "width": int, "height": int, "animated": bool}
_TOGETHER, _QUICK = 100, 5e-3  # files that are asked about at a time, and how many seconds that may take


class ScanMemory:
    """Facts of good images by name, valid while a file's size and modification time stay."""

    def __init__(self, root: Path, limits: ImageLimits) -> None:
        # Another Pillow, or other limits, may judge another way.
        key = "\0".join(("2", PIL.__version__, repr(limits), os.path.realpath(root)))
        digest = hashlib.blake2b(os.fsencode(key), digest_size=16).hexdigest()
        self._file = cache_folder() / SCANS / f"{digest}.json"
        self._folder = str(root)
        self._known = _read(self._file)
        self._changed = False

    def recall(self, names: Sequence[str]) -> Iterator[dict[str, ImageInfo]]:
        """Return what is known of those files that have not changed, of some hundred names at a time."""
        portions = [names[start : start + _TOGETHER] for start in range(0, len(names), _TOGETHER)]
        for _, known in in_threads(self._unchanged, portions if self._known else [], quick=_QUICK):
            yield known

    def _unchanged(self, names: Sequence[str]) -> dict[str, ImageInfo]:
        known = {}
        for name in names:
            fact = self._known.get(name)
            if fact is not None and fact[0] == _stamp(f"{self._folder}/{name}"):
                known[name] = fact[1]
        return known

    def remember(self, name: str, info: ImageInfo) -> None:
        """Note a good file."""
        stamp = _stamp(f"{self._folder}/{name}")
        if stamp is not None:
            self._known[name] = stamp, info
            self._changed = True

    def save(self) -> None:
        """Write what was learned, whole or not at all."""
        if self._changed:
            rows = [(name, *stamp, *info) for name, (stamp, info) in self._known.items()]
            columns = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
            write_cached(self._file, json.dumps(columns).encode())


def _read(file: Path) -> dict[str, tuple[tuple[int, int], ImageInfo]]:
    """Return the stamp and the facts of each file; nothing where the cache is damaged."""
    found = read_cached_object(file)
    columns = [column for name in _COLUMNS if isinstance(column := found.get(name), list)]
    if [set(map(type, column)) for column in columns] != [{kind} for kind in _COLUMNS.values()]:
        return {}
    if len(set(map(len, columns))) > 1:
        return {}
    names, sizes, modified, *facts = columns
    stamps, infos = zip(sizes, modified, strict=True), map(ImageInfo, *facts)
    return dict(zip(names, zip(stamps, infos, strict=True), strict=True))


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        return size_and_time(path)
    except OSError:
        return None
