"""Remember which images were good, so that only new and changed files are decoded again.

A small file for each data set, in the cache folder of the user's system. It only saves time: a file that is
damaged, or a folder that cannot be written, is ignored without a word. Here as there it is columns, and files
are asked for by hundreds: of very many images, what Python does and holds for each takes longer than what the
system does, and more memory than the images' names.
"""

import hashlib
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Self

import numpy as np
import PIL
from safetensors import SafetensorError
from safetensors.numpy import load, save

from finetune.data.image_files import in_archive, sizes_and_times
from finetune.data.images import ImageInfo, ImageLimits
from finetune.machine.cache import SCANS, cache_folder, write_cached
from finetune.machine.cores import in_threads, usable_cores
from finetune.machine.helper import start_helper

_TOGETHER, _QUICK = 100, 5e-3  # files that are asked about at a time, and how many seconds that may take
_MANY = 200_000  # files that take so long that another process has begun before they are asked about
_ANSWERED = 4096  # of which answers are sent at a time
_TIMES = 2**63  # file systems can have later times than a column holds
_COLUMNS = {"size": "q", "modified": "q", "width": "i", "height": "i", "animated": "b"}
"""what they hold, as the type codes that arrays of Python and NumPy share"""

_shared_info = lru_cache(maxsize=4096)(ImageInfo)  # many images have one size, and one object does for them


class FileFacts:
    """What is known of some files, in columns: 25 bytes for each file, and its name."""

    def __init__(self) -> None:
        """Know of no file."""
        self.names: list[str] = []
        self._columns = [array(code) for code in _COLUMNS.values()]

    def add(self, name: str, stamp: tuple[int, int], info: ImageInfo) -> None:
        """Add a file, with its size and time, and what its image is."""
        for column, value in zip(self._columns, (*stamp, *info), strict=True):
            column.append(value)
        self.names.append(name)  # last: Ctrl-C in between leaves columns too long, and `packed` cuts them

    def stamp(self, row: int) -> tuple[int, int]:
        """Return the size and the time of a file."""
        size, modified, *_ = self._columns
        return size[row], modified[row]

    def are_unchanged(self, rows: Sequence[int], stamps: Sequence[tuple[int, int] | None]) -> list[bool]:
        """Tell which files have these sizes and times; none in a row below 0."""
        size, modified, *_ = self._columns
        return [
            row >= 0 and stamp == (size[row], modified[row]) for row, stamp in zip(rows, stamps, strict=True)
        ]

    def infos_of(self, rows: Sequence[int], wanted: Sequence[bool]) -> list[ImageInfo | None]:
        """Return what the images of files are; None of those that are not wanted."""
        _, _, width, height, animated = self._columns
        return [
            _shared_info(width[row], height[row], bool(animated[row])) if is_wanted else None
            for row, is_wanted in zip(rows, wanted, strict=True)
        ]

    def info(self, row: int) -> ImageInfo:
        """Return what the image of a file is."""
        _, _, width, height, animated = self._columns
        return _shared_info(width[row], height[row], bool(animated[row]))

    def packed(self) -> bytes:
        """Return all of it as the content of a safetensors file."""
        rows, names = len(self.names), "\0".join(self.names).encode("utf-8", "surrogatepass")
        tensors = {"names": np.frombuffer(names, np.uint8)}
        for (name, code), column in zip(_COLUMNS.items(), self._columns, strict=True):
            tensors[name] = np.frombuffer(column, code, count=rows)
        return save(tensors)

    @classmethod
    def unpacked(cls, content: bytes) -> "FileFacts":
        """Return what `packed` was made of.

        Raises:
            ValueError: it is something else.
        """
        facts = cls()
        try:
            found = load(content)
            facts.names = found["names"].tobytes().decode("utf-8", "surrogatepass").split("\0")
            for (name, code), column in zip(_COLUMNS.items(), facts._columns, strict=True):
                column.frombytes(found[name].astype(code, casting="equiv").tobytes())
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from None
        if {len(column) for column in facts._columns} != {len(facts.names)}:
            raise ValueError("columns of different lengths")
        return facts


class ScanMemory:
    """Facts of good images by name, valid while a file's size and modification time stay."""

    def __init__(self, root: Path, limits: ImageLimits) -> None:
        # Another Pillow, or other limits, may judge another way.
        self._root = os.path.realpath(root)
        key = "\0".join(("3", sys.byteorder, PIL.__version__, repr(limits), self._root))
        digest = hashlib.blake2b(os.fsencode(key), digest_size=16).hexdigest()
        self._file = cache_folder() / SCANS / f"{digest}.safetensors"
        self._folder = str(root)
        self._facts = _read(self._file)
        self._rows = dict(zip(self._facts.names, range(len(self._facts.names)), strict=True))
        self._changed = False
        self._answers: Answers | None = None
        self._unchanged = b""

    @classmethod
    def asked_ahead(cls, root: Path, limits: ImageLimits) -> Self:
        """Return that of a folder; a process of its own begins to ask about very many files meanwhile."""
        memory = cls(root, limits)
        if len(memory._rows) >= _MANY and usable_cores() > 1 and not in_archive(root):
            memory._answers = Answers(memory._file, memory._folder)
        return memory

    def is_of(self, root: Path) -> bool:
        """Tell whether it is that of a folder."""
        return os.path.realpath(root) == self._root

    def recall(self, names: Sequence[str]) -> Iterator[list[ImageInfo | None]]:
        """Return what is known of each file, of some hundred at a time; None of one that has changed."""
        if self._answers is not None:
            self._unchanged, self._answers = self._answers.so_far(), None
        portions = [names[start : start + _TOGETHER] for start in range(0, len(names), _TOGETHER)]
        for _, known in in_threads(self._known, portions, quick=_QUICK):
            yield known

    def _known(self, names: Sequence[str]) -> list[ImageInfo | None]:
        if not self._rows:
            return [None] * len(names)
        rows = [self._rows.get(name, -1) for name in names]
        if max(rows) < len(self._unchanged):  # all that are known were asked about ahead
            unchanged = [row >= 0 and self._unchanged[row] == 1 for row in rows]
        else:
            unchanged = self._facts.are_unchanged(rows, _stamps(self._folder, names))
        return self._facts.infos_of(rows, unchanged)

    def remember(self, name: str, info: ImageInfo) -> None:
        """Note a good file."""
        (stamp,) = _stamps(self._folder, [name])
        if stamp is not None:
            self._facts.add(name, stamp, info)
            self._rows[name] = len(self._facts.names) - 1
            self._changed = True

    def save(self) -> None:
        """Write what was learned, whole or not at all."""
        if self._changed:
            write_cached(self._file, self._latest().packed())
            self._changed = False

    def _latest(self) -> FileFacts:
        """Return what is known without what was known of files that have changed since."""
        if len(self._rows) == len(self._facts.names):
            return self._facts
        latest = FileFacts()
        for name, row in self._rows.items():
            latest.add(name, self._facts.stamp(row), self._facts.info(row))
        return latest


class Answers:
    """Which remembered files have not changed, from a process that asks the file system about them."""

    def __init__(self, file: Path, folder: str) -> None:
        """Start with the first that is remembered in a file, of those below a folder."""
        self._process, self._connection = start_helper(_answer, file, folder)
        self._received: list[bytes] = []
        self._receiver = Thread(target=self._receive, daemon=True)  # a pipe holds few answers
        self._receiver.start()

    def so_far(self) -> bytes:
        """Return a byte for each of the first files, 1 if it has not changed, and end the process.

        It is behind where a file system is slow, or it was killed; nobody waits for it.
        """
        self._process.kill()
        self._process.join(1)  # no longer, should it hang with its disk
        self._receiver.join(1)
        return b"".join(self._received)

    def _receive(self) -> None:
        with self._connection, suppress(OSError, EOFError):
            while True:
                self._received.append(self._connection.recv_bytes())


def _answer(connection: "Connection[bytes, None]", file: Path, folder: str) -> None:
    """Send the answers, about some thousand files at a time."""
    facts = _read(file)
    with suppress(OSError):
        for start in range(0, len(facts.names), _ANSWERED):
            names = facts.names[start : start + _ANSWERED]
            rows = range(start, start + len(names))
            connection.send_bytes(bytes(facts.are_unchanged(rows, _stamps(folder, names))))


def _read(file: Path) -> FileFacts:
    try:
        return FileFacts.unpacked(file.read_bytes())
    except (OSError, ValueError):
        return FileFacts()


def _stamps(folder: str, names: Sequence[str]) -> list[tuple[int, int] | None]:
    return [stamp and (stamp[0], stamp[1] % _TIMES) for stamp in sizes_and_times(folder, names)]
