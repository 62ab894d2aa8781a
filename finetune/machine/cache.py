"""The cache folder of the user's system: what only saves time, and may be deleted at any moment.

It is `$XDG_CACHE_HOME/finetune` or `~/.cache/finetune` on Linux. Nothing ever fails for it: a folder that
cannot be written, a full disk or a damaged file cost the time that they would have saved.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_cache_path

from finetune.errors import ConfigError
from finetune.text import shown_size

SCANS, DIGESTS, FEATURES, DECODED = "scans", "digests", "features", "decoded"
"""Its folders: which images were good; digests of files; features of images; decoded images."""

SIZE_VARIABLE = "FINETUNE_CACHE_SIZE"
"""Environment variable: the most bytes of features."""

DECODED_VARIABLE = "FINETUNE_DECODED_SIZE"
"""Environment variable: the most bytes of decoded images."""

_USUAL_SIZE = 5 * 10**9
_USUAL_DECODED = 4
"""times the bytes of features"""
_TEMPORARY = ".tmp"
_ABANDONED = 3600.0  # seconds after which a temporary file has no writer any more

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


class CachedFile(NamedTuple):
    """A file of the cache."""

    path: Path
    bytes: int
    used: float
    """When it was last used, in seconds since 1970."""


def cache_folder() -> Path:
    """Return the folder, which need not be there."""
    return user_cache_path("finetune", appauthor=False)


def most_feature_bytes() -> int:
    """Return how many bytes of features are kept; 0 for none.

    Raises:
        ConfigError: the environment variable holds no size.
    """
    return _size_of_variable(SIZE_VARIABLE, _USUAL_SIZE)


def most_decoded_bytes() -> int:
    """Return how many bytes of decoded images are kept on disk; 0 for none.

    Who bounds features alone, or keeps none, bounds these by it as well.

    Raises:
        ConfigError: an environment variable holds no size.
    """
    return _size_of_variable(DECODED_VARIABLE, _USUAL_DECODED * most_feature_bytes())


def _size_of_variable(variable: str, usual: int) -> int:
    written = os.environ.get(variable, "")
    if not written.strip():
        return usual
    try:
        return parse_size(written)
    except ValueError as error:
        raise ConfigError(
            f"{variable}: {error}\nCorrect the environment variable, or unset it for {shown_size(usual)}."
        ) from None


def parse_size(written: str) -> int:
    """Read a size such as `5GB`, `500 MB`, `1.5GiB` or `0`; a number alone is of bytes.

    Raises:
        ValueError: no such size.
    """
    found = _SIZE.fullmatch(written)
    if found is None:
        raise ValueError(f"expected a size such as 5GB, 500MB or 0, not {written!r}.")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit.lower() or " "))


def write_cached(path: Path, content: bytes) -> bool:
    """Write a file of the cache, whole or not at all; tell whether it was possible."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=_TEMPORARY, delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        os.replace(temporary, path)
        temporary = None
    except OSError:
        return False
    finally:
        if temporary is not None:  # also after Ctrl-C
            remove([temporary])
    return True


def read_cached_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of the cache; an empty one where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def cached_rows(path: Path) -> tuple[str, int] | None:
    """Return what a safetensors file of the cache is about, and the length of its `rows`, one for each image.

    None if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("about", ""), file.get_slice("rows").get_shape()[0]
    except (SafetensorError, OSError):
        return None


def mark_used(path: Path) -> None:
    """Note that a file is of use, so that others are removed before it."""
    with suppress(OSError):
        os.utime(path)


def cached_files(folder: Path) -> list[CachedFile]:
    """Return the files below a folder of the cache, those that were used last at the end."""
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process may have removed it
            if path.is_file():
                status = path.stat()
                found.append(CachedFile(path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda file: (file.used, file.path))


def trim(files: Iterable[CachedFile], most_bytes: int) -> int:
    """Remove the first of some files until the rest has at most so many bytes; return the bytes removed."""
    files = list(files)
    too_many = sum(file.bytes for file in files) - most_bytes
    going = list(_until(files, too_many))
    remove(file.path for file in going)
    return sum(file.bytes for file in going)


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed have left half written."""
    long_ago = time.time() - _ABANDONED
    remove(f.path for f in cached_files(folder) if f.path.suffix == _TEMPORARY and f.used < long_ago)


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and their folders if nothing else is in them; what cannot be removed stays."""
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()  # fails while it holds something


def _until(files: Iterable[CachedFile], most_bytes: int) -> Iterator[CachedFile]:
    """Return files until they have so many bytes."""
    for file in files:
        if most_bytes <= 0:
            return
        most_bytes -= file.bytes
        yield file
