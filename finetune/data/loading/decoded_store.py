"""Decoded images in files, for the epochs and the trainings that come after.

A block is a safetensors file of images that were decoded together: `pixels` (B,) uint8, one image after the
other; `rows` (n, 5) int64, for each image where it starts and how its pixels lie; `keys` (n, 16) uint8; and
`sums` (n,) int64. As the files of features it is written under another name and then renamed, and never
changes: readers need no lock, and what a killed process leaves is never read. It is mapped into memory, so
that all processes share what the system has read of it.
"""

import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from finetune.machine.cache import cached_files, mark_used, remove, remove_abandoned, trim, write_cached

SUFFIX = ".safetensors"

KEY = 16
"""bytes of a key"""

_GONE = (OSError, RuntimeError)  # removed by another process, or not ours to read; torch maps it


@dataclass(frozen=True)
class Block:
    """Images that were decoded together."""

    path: Path | None
    """None where it is in memory alone"""
    keys: bytes
    rows: Tensor
    sums: Tensor
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, number: int) -> bytes:
        """Return the key of an image."""
        return self.keys[number * KEY : (number + 1) * KEY]

    def each_key(self) -> Iterator[bytes]:
        """Return the keys of all images."""
        return map(self.key, range(len(self)))

    def remove(self) -> None:
        """Remove the file; who has mapped it can still read it."""
        if self.path is not None:
            remove([self.path])

    def image(self, number: int) -> Tensor:
        """Return the pixels (C, H, W) of an image as they were given, in the order in memory as well."""
        start, *shape, last = self.rows[number].tolist()
        stored = self.pixels[start : start + shape[0] * shape[1] * shape[2]].view(shape)
        return stored.permute(2, 0, 1) if last else stored

    def is_whole(self, number: int) -> bool:
        """Tell whether an image is as it was written."""
        start, *shape, _ = self.rows[number].tolist()
        stored = self.pixels[start : start + shape[0] * shape[1] * shape[2]]
        return _checksum(self.key(number), stored) == int(self.sums[number])

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process map the file itself, instead of sending it the pixels."""
        if self.path is not None:
            return open_block, (self.path,)
        return Block, (None, self.keys, self.rows, self.sums, self.pixels)


def make_block(keys: Sequence[bytes], images: Sequence[Tensor]) -> Block:
    """Put images (C, H, W), uint8, together."""
    rows, parts, start = [], [], 0
    for image in images:
        # Later sums run through an image in the order in which it lies: it is kept, for the last bit of them.
        last = image.stride(0) < image.stride(2)
        stored = image.permute(1, 2, 0) if last else image
        rows.append((start, *stored.shape, int(last)))
        parts.append(stored.reshape(-1))
        start += image.numel()
    sums = [_checksum(key, part) for key, part in zip(keys, parts, strict=True)]
    return Block(None, b"".join(keys), torch.tensor(rows), torch.tensor(sums), torch.cat(parts))


def open_block(path: Path) -> Block | None:
    """Map a file into memory; None if it is gone, or damaged, when it is removed."""
    try:
        with safe_open(path, framework="pt") as file:
            keys, rows, sums, pixels = (file.get_tensor(name) for name in ("keys", "rows", "sums", "pixels"))
    except _GONE:
        return None
    except SafetensorError:
        remove([path])
        return None
    block = Block(path, bytes(keys.numpy()), rows, sums, pixels)
    if not _fits_together(block):
        remove([path])
        return None
    return block


class DecodedStore:
    """A folder of decoded images of at most so many bytes; those that were not used for longest go first."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Prepare to read and write; the folder need not be there."""
        self.folder, self.most_bytes = folder, most_bytes
        self.is_full = False
        """whether something was not written because it would have been more"""
        self._in_use: dict[Path, int] = {}

    @property
    def room(self) -> int:
        """How many bytes may still be written, beside what is in use."""
        return self.most_bytes - sum(self._in_use.values())

    def open(self, namespace: str) -> list[Block]:
        """Return the blocks of a namespace, the digest of everything that all its images depend on."""
        files = sorted(file.path for file in cached_files(self.folder / namespace))
        blocks = (open_block(path) for path in files if path.suffix == SUFFIX)
        return [block for block in blocks if block is not None]

    def use(self, block: Block) -> None:
        """Keep a block from being removed by this process, and let others remove others first."""
        if block.path is not None and block.path not in self._in_use:
            self._in_use[block.path] = block.pixels.nbytes
            mark_used(block.path)

    def write(self, namespace: str, block: Block, about: str) -> Block | None:
        """Write a block, for which others may have to go, and map it; None where that is not possible.

        Args:
            namespace: as for `open`.
            block: images in memory.
            about: what they are, in a few words for people.
        """
        remove_abandoned(self.folder)
        keys = torch.frombuffer(bytearray(block.keys), dtype=torch.uint8)
        tensors = {"keys": keys, "rows": block.rows, "sums": block.sums, "pixels": block.pixels}
        content = save(tensors, {"about": about})
        if len(content) > self.room:
            self.is_full = True
            return None
        others = (file for file in cached_files(self.folder) if file.path not in self._in_use)
        trim(others, self.room - len(content))
        path = self.folder / namespace / f"{uuid.uuid4().hex}{SUFFIX}"
        return open_block(path) if write_cached(path, content) else None


def _checksum(key: bytes, pixels: Tensor) -> int:
    return zlib.crc32(pixels.numpy().data, zlib.crc32(key))


def _fits_together(block: Block) -> bool:
    """Tell whether the parts of a block are of as many images, and those within its pixels."""
    rows, dtypes = block.rows, (block.rows.dtype, block.sums.dtype, block.pixels.dtype)
    if dtypes != (torch.int64, torch.int64, torch.uint8) or rows.ndim != 2 or rows.shape[1] != 5:
        return False
    if len(block.keys) != len(rows) * KEY or block.sums.shape != (len(rows),) or block.pixels.ndim != 1:
        return False
    ends = rows[:, 0] + rows[:, 1:4].prod(1)
    return bool((rows >= 0).all() and (ends <= len(block.pixels)).all())
