"""Find files with the same bytes."""

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from finetune.data.image_files import file_status
from finetune.data.quality.content_digests import ContentDigests
from finetune.data.quality.fingerprint import Fingerprint


def find_copies(root: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Group the files that have the same bytes; files without a copy are in no group.

    Only files of the same size are read, so that this costs next to nothing for photos. Files that cannot be
    read, or that have gone, are passed over.
    """
    same_size = _groups(names, lambda name: _size(os.path.join(root, name)))
    alike = [name for group in same_size for name in group]
    contents = dict(zip(alike, ContentDigests(root).take(alike), strict=True))
    digests = {name: content.digest for name, content in contents.items() if content is not None}
    groups = [copies for group in same_size for copies in _groups(group, digests.get)]
    return sorted(groups, key=lambda group: os.fsencode(group[0]))


def find_copies_in(files: Mapping[str, Fingerprint]) -> list[tuple[str, ...]]:
    """Group the files that have the same bytes, as `find_copies` does; nothing is read."""
    groups = _groups(files, lambda name: files[name].blake2b)
    return sorted(groups, key=lambda group: os.fsencode(group[0]))


def _groups(names: Iterable[str], key: Callable[[str], Hashable]) -> list[tuple[str, ...]]:
    """Gather names with the same key, where there are several; a key of None is that of no group."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    groups.pop(None, None)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _size(path: str) -> int | None:
    try:
        return file_status(path).size or None  # empty files are no copies of an image
    except OSError:
        return None
