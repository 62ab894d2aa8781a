"""What the files of a data set hold, in a few bytes each, to notice what has changed since."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from finetune.data.image_files import file_status, open_file
from finetune.data.images import file_reason
from finetune.data.index import ImageIndex
from finetune.data.quality.content_digests import ContentDigests
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

    Files with the size and time of a known one are not read again, nor those whose digests are remembered.

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
    names, digests = [sample.name for sample in index.samples], ContentDigests(root)
    taken: dict[str, Fingerprint] = {}
    for name, fingerprint in in_threads(lambda name: _take(root, name, known.get(name), digests), names):
        taken[name] = fingerprint
        progress(len(taken))
    digests.save()
    return taken


def _take(root: Path, name: str, known: Fingerprint | None, digests: ContentDigests) -> Fingerprint:
    try:
        if known is not None:
            status = file_status(os.path.join(root, name))
            if known[:2] == (status.size, status.modified):
                return known
        content = digests.look(name)
        if content is None:
            with open_file(os.path.join(root, name)):
                raise OSError("it was written to")
    except OSError as error:
        reason = file_reason(error)
        raise DataError(f"{printable(name)}: {reason}; it has changed since the scan.") from None
    return Fingerprint(*content.stamp[:2], content.digest)
