"""Features of images on disk, for the trainings that come after.

A segment is a safetensors file of rows that were computed together: `keys` (n, 16) uint8, `rows` (n, D)
float32, or bfloat16 where that loses nothing, and `sums` (n, 16) uint8. It is written under another name and
then renamed, and never changes; so readers need no lock, and what a killed process leaves is never read. A
row counts only if its sum fits: whatever is damaged is computed again.
"""

import hashlib
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from finetune.machine.cache import (
    cached_files,
    mark_used,
    remove,
    remove_abandoned,
    trim,
    write_cached,
)

SUFFIX = ".safetensors"

_DIGEST = 16  # bytes
# What a process that is killed may lose, in bytes and seconds of computing.
_MOST_BYTES = 64 << 20
_MOST_SECONDS = 30.0
# Removed by another process, or not ours to read. It is opened twice: by safetensors, and by torch to map it,
# which raises a RuntimeError.
_GONE = (OSError, RuntimeError)
_DTYPES = (torch.float32, torch.bfloat16)


class FeatureStore:
    """A folder of features of at most so many bytes; those that were not used for longest go first."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Prepare to read and write; the folder need not be there."""
        self.folder, self.most_bytes = folder, most_bytes

    def rows(self, namespace: str, about: str) -> "StoredRows":
        """Return the rows of a namespace.

        Args:
            namespace: digest of everything that all its rows depend on.
            about: what that is, in a few words for people.
        """
        return StoredRows(self, namespace, about)

    def write(self, namespace: str, content: bytes) -> None:
        """Write a segment, and make room for it first."""
        if len(content) > self.most_bytes:
            return
        remove_abandoned(self.folder)
        trim(cached_files(self.folder), self.most_bytes - len(content))
        write_cached(self.folder / namespace / f"{uuid.uuid4().hex}{SUFFIX}", content)


class StoredRows:
    """Rows of features (D,) by key, of one namespace of a store."""

    def __init__(self, store: FeatureStore, namespace: str, about: str) -> None:
        self._store, self._namespace, self._about = store, namespace, about
        self._segments = [
            segment
            for file in cached_files(store.folder / namespace)  # a later row replaces an earlier one
            if file.path.suffix == SUFFIX and (segment := _open_segment(file.path)) is not None
        ]
        self._places = {
            segment.keys[start : start + _DIGEST]: (segment, start // _DIGEST)
            for segment in self._segments
            for start in range(0, len(segment.keys), _DIGEST)
        }
        self._used: set[Path] = set()
        self._new: list[tuple[Sequence[bytes], Tensor]] = []
        self._saved = time.monotonic()

    def get(self, key: bytes) -> Tensor | None:
        """Return a row (D,), float32, if it is there as it was written."""
        if key not in self._places:
            return None
        segment, number = self._places[key]
        row = segment.rows[number].clone()  # the copy is what is checked, and what is used
        start = number * _DIGEST
        if _checksum(key, row) != segment.sums[start : start + _DIGEST]:
            remove([segment.path])
            return None
        if segment.path not in self._used:
            self._used.add(segment.path)
            mark_used(segment.path)
        return row.float()

    def add(self, keys: Sequence[bytes], rows: Tensor) -> None:
        """Take in rows (n, D), float32; they are written now and then, and by `save`."""
        if len(keys):
            self._new.append((keys, rows.detach().cpu()))
        much = sum(part.nbytes for _, part in self._new) > _MOST_BYTES
        if much or time.monotonic() - self._saved > _MOST_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what was taken in, if the disk allows it."""
        if self._new:
            keys = [key for part, _ in self._new for key in part]
            rows = torch.cat([part for _, part in self._new])
            self._store.write(self._namespace, _segment(keys, rows, self._about))
            self._new, self._saved = [], time.monotonic()


class _Segment(NamedTuple):
    path: Path
    keys: bytes
    sums: bytes
    rows: Tensor
    """(n, D), mapped into memory"""


def row_key(*parts: object) -> bytes:
    """Return the key of a row from all that tells it from the others of its namespace."""
    text = "\0".join(map(str, parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_DIGEST).digest()


def _segment(keys: Sequence[bytes], rows: Tensor, about: str) -> bytes:
    """Return the content of a segment."""
    narrow = rows.to(torch.bfloat16)
    if torch.equal(narrow.float(), rows):
        rows = narrow
    rows = rows.contiguous()
    sums = b"".join(_checksum(key, row) for key, row in zip(keys, rows, strict=True))
    tensors = {"keys": _as_tensor(b"".join(keys)), "sums": _as_tensor(sums), "rows": rows}
    return save(tensors, {"about": about})


def _open_segment(path: Path) -> _Segment | None:
    """Map a segment into memory; one that is damaged is removed."""
    try:
        with safe_open(path, framework="pt") as file:
            keys, sums, rows = (file.get_tensor(name) for name in ("keys", "sums", "rows"))
        segment = _Segment(path, _as_bytes(keys), _as_bytes(sums), rows)
    except _GONE:
        return None
    except SafetensorError:
        remove([path])
        return None
    lengths = {len(segment.keys), len(segment.sums), len(rows) * _DIGEST}
    if rows.ndim != 2 or rows.dtype not in _DTYPES or len(lengths) != 1:
        remove([path])
        return None
    return segment


def _checksum(key: bytes, row: Tensor) -> bytes:
    """Return the digest of a row (D,) under its key."""
    digest = hashlib.blake2b(key, digest_size=_DIGEST)
    digest.update(str(row.dtype).encode())
    digest.update(row.view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, _DIGEST)


def _as_bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.reshape(-1).view(torch.uint8).numpy())
