"""What the files of a data set hold, in a few bytes each, to notice what has changed since."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from finetune.data.image_files import file_status, open_file
from finetune.data.images import file_reason
from finetune.data.index import ImageIndex
from finetune.errors import DataError
from finetune.machine.cores import in_threads
from finetune.text import printable


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
    """Return the fingerprint of every image; a built-in data set has none.

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
    for name, fingerprint in in_threads(lambda name: _take(root / name, name, known.get(name)), names):
        taken[name] = fingerprint
        progress(len(taken))
    return taken


def digest_file(path: Path) -> str:
    """Return the BLAKE2b digest of a file's content, 128 bits in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _take(path: Path, name: str, known: Fingerprint | None) -> Fingerprint:
    try:
        status = file_status(path)
        if known is not None and known[:2] == (status.size, status.modified):
            return known
        digest = digest_file(path)
    except OSError as error:
        reason = file_reason(error)
        raise DataError(f"{printable(name)}: {reason}; it has changed since the scan.") from None
    return Fingerprint(status.size, status.modified, digest)
