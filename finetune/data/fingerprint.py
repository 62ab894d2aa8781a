"""What the files of a data set hold, in a few bytes each, to notice what has changed since."""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from finetune.data.index import ImageIndex
from finetune.errors import DataError
from finetune.images import file_reason
from finetune.text import printable

_IN_FLIGHT = 64  # images per batch handed to the threads, so that Ctrl-C does not wait for a long queue


class Fingerprint(NamedTuple):
    """Of one file."""

    bytes: int
    modified: int
    """Time of its last change, in nanoseconds; it alone says nothing, a copy has another one."""
    blake2b: str
    """Digest of its content, 128 bits in hexadecimal."""


def take_fingerprints(
    index: ImageIndex, known: Mapping[str, Fingerprint], progress: Callable[[int], None]
) -> dict[str, Fingerprint]:
    """Give the fingerprint of every image; a built-in data set has none.

    Files with the size and time of a known one are not read again.

    Args:
        index: the data set.
        known: fingerprints taken before, by name.
        progress: called with the number of images done.

    Raises:
        DataError: a file has gone since it was indexed.
    """
    root = index.root
    if root is None:
        return {}
    names = [sample.name for sample in index.samples]
    taken: dict[str, Fingerprint] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="digest") as threads:
        for start in range(0, len(names), _IN_FLIGHT):
            some = names[start : start + _IN_FLIGHT]
            fingerprints = threads.map(lambda name: _take(root / name, name, known.get(name)), some)
            taken.update(zip(some, fingerprints, strict=True))
            progress(len(taken))
    return taken


def _take(path: Path, name: str, known: Fingerprint | None) -> Fingerprint:
    try:
        status = path.stat()
        if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
            return known
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    except OSError as error:
        reason = file_reason(error)
        raise DataError(f"{printable(name)}: {reason}; it has changed since the scan.") from None
    return Fingerprint(status.st_size, status.st_mtime_ns, digest.hexdigest())
