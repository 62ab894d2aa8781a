"""The story of `finetune cache`: what is in the cache folder, and how to empty it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune.display import Display
from finetune.machine.cache import (
    DECODED,
    DECODED_VARIABLE,
    DIGESTS,
    FEATURES,
    SCANS,
    SIZE_VARIABLE,
    CachedFile,
    cache_folder,
    cached_files,
    cached_rows,
    most_decoded_bytes,
    most_feature_bytes,
    remove,
    trim,
)
from finetune.text import counted, shown_size

_WHAT = {
    SCANS: "which images are good",
    DIGESTS: "digests of image files",
}
_OF = {FEATURES: "features of", DECODED: "decoded images of"}


@dataclass(frozen=True)
class Entry:
    """Features of one network, decoded images of one data set, or what is remembered of data sets."""

    kind: str
    """`features`, `decoded`, `scans` or `digests`"""
    about: str
    images: int | None
    """whose features or pixels they are; None of other kinds"""
    files: int
    bytes: int
    used: float
    """when it was last used, in seconds since 1970"""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as `cache --json` documents it."""
        used = datetime.fromtimestamp(self.used).astimezone().isoformat(timespec="seconds")
        return {
            "kind": self.kind,
            "about": self.about,
            "images": self.images,
            "bytes": self.bytes,
            "used": used,
        }


@dataclass(frozen=True)
class CacheReport:
    """What is in the cache folder."""

    folder: Path
    most_bytes: int
    """of features"""
    most_decoded_bytes: int
    """of decoded images"""
    entries: tuple[Entry, ...]
    """Those that were used last come first."""
    removed: int = 0
    """bytes that were removed before"""

    @property
    def bytes(self) -> int:
        """Size of all of it."""
        return sum(entry.bytes for entry in self.entries)

    @property
    def feature_bytes(self) -> int:
        """Size of the features."""
        return self._bytes_of(FEATURES)

    @property
    def decoded_bytes(self) -> int:
        """Size of the decoded images."""
        return self._bytes_of(DECODED)

    def _bytes_of(self, kind: str) -> int:
        return sum(entry.bytes for entry in self.entries if entry.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as `cache --json` documents it."""
        return {
            "folder": str(self.folder),
            "bytes": self.bytes,
            "feature_bytes": self.feature_bytes,
            "most_feature_bytes": self.most_bytes,
            "decoded_bytes": self.decoded_bytes,
            "most_decoded_bytes": self.most_decoded_bytes,
            "removed_bytes": self.removed,
            "entries": [entry.to_dict() for entry in self.entries],
        }


def look_at_cache(removed: int = 0) -> CacheReport:
    """Return what is in the cache folder.

    Raises:
        ConfigError: the environment variable of a bound holds no size.
    """
    folder, most_bytes = cache_folder(), most_feature_bytes()
    entries = [entry for kind in _OF for entry in _entries(kind, folder / kind)]
    for kind, about in _WHAT.items():
        if files := cached_files(folder / kind):
            entries.append(_entry(kind, about, None, files))
    entries.sort(key=lambda entry: -entry.used)
    return CacheReport(folder, most_bytes, most_decoded_bytes(), tuple(entries), removed)


def trim_cache(most_bytes: int) -> int:
    """Remove what was unused for longest until so much is left; return the bytes removed.

    Decoded images go first, which take least time to have again, and features next.
    """
    before = _all_files()
    trim(before, most_bytes)
    return _bytes(before) - _bytes(_all_files())


def clear_cache() -> int:
    """Remove all that is in the cache folder, as far as the system allows it; return the bytes removed."""
    before = _all_files()
    remove(file.path for file in before)
    return _bytes(before) - _bytes(_all_files())


def show_cache(report: CacheReport, display: Display, *, changed: bool) -> None:
    """Show what is in the cache folder; `changed` says that something was to be removed."""
    if changed:
        display.say(f"removed {shown_size(report.removed)}")
    display.say(f"cache   {report.folder}, {shown_size(report.bytes)}")
    if report.entries:
        display.table(
            ("what", "images", "size", "last used"),
            [(_title(e), _images(e), shown_size(e.bytes), _ago(e.used)) for e in report.entries],
            least_important=("last used", "images"),
        )
    for what, size, most, variable in (
        ("features", report.feature_bytes, report.most_bytes, SIZE_VARIABLE),
        ("decoded images", report.decoded_bytes, report.most_decoded_bytes, DECODED_VARIABLE),
    ):
        bound = f"at most {shown_size(most)}" if most else "none are kept"
        display.say(f"{what} {shown_size(size)}, {bound} ({variable})")


def _entries(kind: str, folder: Path) -> list[Entry]:
    """Return an entry for each namespace of a store of features or of decoded images."""
    by_namespace: dict[Path, list[CachedFile]] = {}
    for file in cached_files(folder):
        by_namespace.setdefault(file.path.parent, []).append(file)
    entries = []
    for files in by_namespace.values():
        known = [found for file in files if (found := cached_rows(file.path)) is not None]
        about = known[-1][0] if known else "damaged or half written"
        entries.append(_entry(kind, about, sum(images for _, images in known), files))
    return entries


def _entry(kind: str, about: str, images: int | None, files: Sequence[CachedFile]) -> Entry:
    return Entry(kind, about, images, len(files), _bytes(files), max(file.used for file in files))


def _all_files() -> list[CachedFile]:
    """Return the files of the cache, in the order in which they are removed."""
    folder = cache_folder()
    return [file for kind in (DECODED, FEATURES, DIGESTS, SCANS) for file in cached_files(folder / kind)]


def _bytes(files: Sequence[CachedFile]) -> int:
    return sum(file.bytes for file in files)


def _title(entry: Entry) -> str:
    return f"{_OF[entry.kind]} {entry.about}" if entry.kind in _OF else entry.about


def _images(entry: Entry) -> str:
    return counted(entry.files, "data set") if entry.images is None else f"{entry.images:,}"


def _ago(used: float) -> str:
    """Write how long ago something was."""
    seconds = max(time.time() - used, 0)
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{counted(int(seconds // length), unit)} ago"
    return "just now"
