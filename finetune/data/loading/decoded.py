"""Images that are decoded already, found in memory or on disk by their position in a data set."""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from finetune.data.image_files import SETTLED, file_status
from finetune.data.index import Sample
from finetune.data.loading.decoded_store import KEY, Block, DecodedStore
from finetune.machine.cores import in_threads

_NOWHERE = -1


class DecodedImages:
    """Those images of a data set that are decoded already."""

    def __init__(self, root: Path, samples: Sequence[Sample]) -> None:
        """Look at the files; what changes from now on is not taken from here."""
        self._root, self._samples = str(root), samples
        self._stamps = np.zeros((len(samples), 3), np.int64)
        before = time.time_ns() - SETTLED  # a file that is younger may change and not show it
        for position, stamp in in_threads(self._look, range(len(samples))):
            if stamp is not None and max(stamp[1:]) < before:
                self._stamps[position] = stamp
        self._places = np.full((len(samples), 2), _NOWHERE, np.int32)
        self._checked = np.zeros(len(samples), bool)  # against their sums, by this process
        self._blocks: list[Block | None] = []

    def get(self, position: int) -> Tensor | None:
        """Return the pixels (3, H, W) of an image, which nobody may change; None where they are not known."""
        number, row = int(self._places[position, 0]), int(self._places[position, 1])
        if number == _NOWHERE or not self.is_unchanged(position):
            return None
        block = self._blocks[number]
        if block is None:
            return None
        if not self._checked[position]:
            if not block.is_whole(row):
                self._places[position] = _NOWHERE
                block.remove()  # the next run decodes its images anew
                return None
            self._checked[position] = True
        return block.image(row)

    def is_unchanged(self, position: int) -> bool:
        """Tell whether a file is as it was when it was looked at."""
        return self._look(position) == tuple(self._stamps[position].tolist())

    def keys(self) -> dict[bytes, int]:
        """Return the positions of the images by what tells these files, as they are now, from all others."""
        known, root = {}, os.path.realpath(self._root)
        for position, stamp in enumerate(self._stamps.tolist()):
            if any(stamp):
                text = "\0".join(map(str, (root, self._samples[position].name, *stamp)))
                known[hashlib.blake2b(os.fsencode(text), digest_size=KEY).digest()] = position
        return known

    def take_in(self, block: Block, positions: Mapping[bytes, int]) -> int:
        """Find images in a block from now on; return of how many it is the only one."""
        new = 0
        for row, key in enumerate(block.each_key()):
            position = positions.get(key)
            if position is not None and self._places[position, 0] == _NOWHERE:
                self._places[position] = len(self._blocks), row
                new += 1
        if new:
            self._blocks.append(block)
        return new

    @property
    def count(self) -> int:
        """Number of the images that are decoded."""
        return int(np.count_nonzero(self._places[:, 0] != _NOWHERE))

    @property
    def bytes(self) -> int:
        """Size of the blocks that hold them."""
        return sum(block.pixels.nbytes for block in self._blocks if block is not None)

    def missing(self) -> list[int]:
        """Return the positions of the images that could be decoded once, and are not yet."""
        missing = (self._places[:, 0] == _NOWHERE) & self._stamps.any(1)
        positions: list[int] = np.flatnonzero(missing).tolist()
        return positions

    def _path(self, position: int) -> str:
        return os.path.join(self._root, self._samples[position].name)

    def _look(self, position: int) -> tuple[int, int, int] | None:
        try:
            return file_status(self._path(position))[:3]
        except OSError:
            return None


def find_decoded(decoded: DecodedImages, store: DecodedStore, namespace: str) -> None:
    """Find what earlier runs have decoded, and remove what two of them decoded at the same time."""
    blocks = store.open(namespace)
    positions, seen = decoded.keys() if blocks else {}, set[bytes]()
    for block in blocks:
        if decoded.take_in(block, positions):
            store.use(block)
        elif all(key in seen for key in block.each_key()):
            block.remove()
        seen.update(block.each_key())
