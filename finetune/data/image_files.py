"""Where images lie: open, list and look at files, in folders and in archives alike.

A path may go on behind an archive as it does behind a folder: `photos.zip/ants/1.jpg`. Whatever opens an
image, or asks when it has changed, asks here.
"""

import hashlib
import io
import os
import re
import stat
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from finetune.choices import ARCHIVE_SUFFIXES
from finetune.data.archives.members import Entry, MemberTable
from finetune.data.archives.parquet_members import ParquetMembers
from finetune.data.archives.tar_members import read_tar
from finetune.data.archives.zip_members import read_zip
from finetune.errors import DataError
from finetune.text import expanded, printable

_IN_ARCHIVE = re.compile(r"\.(?:(?:zip|tar)(?=[/\\]|$)|parquet(?=[/\\]))", re.IGNORECASE)
_OPEN_ARCHIVES = 128  # whose directories a process keeps

SETTLED = 2_000_000_000
"""nanoseconds after a change in which another may leave the same time, as file systems count it"""


class FileStatus(NamedTuple):
    """What tells whether a file has changed; of a member, times are those of its archive."""

    size: int
    modified: int
    """time of the last change of its content, in nanoseconds"""
    changed: int
    """time of the last change of its entry, in nanoseconds"""
    is_file: bool
    """a regular one; opening any other could block for ever"""


def is_archive(path: str | Path) -> bool:
    """Tell whether a path is a file that is named like an archive that is read in place."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES) and os.path.isfile(expanded(path))


def in_archive(path: str | Path) -> bool:
    """Tell whether a path is an archive, or leads into one.

    Raises:
        DataError: the archive cannot be read.
    """
    return _in_archive(path) is not None


def archive_of(path: str | Path) -> Path | None:
    """Return the archive that a path is, or leads into; None where there is none.

    Raises:
        DataError: the archive cannot be read.
    """
    found = _in_archive(path)
    return None if found is None else found[0].path


def open_file(path: str | Path) -> io.BufferedReader | io.BytesIO:
    """Open a file, or a member of an archive, to read its bytes.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: its name cannot be one.
        DataError: the archive cannot be read.
    """
    found = _in_archive(path)
    if found is None:
        return open(path, "rb")
    members, name = found
    return io.BytesIO(members.read(name))


def file_status(path: str | Path) -> FileStatus:
    """Return what tells whether a file, or a member of an archive, has changed.

    Raises:
        OSError: it is not there.
        ValueError: its name cannot be one.
        DataError: the archive cannot be read.
    """
    found = _in_archive(path)
    if found is None:
        status = os.stat(path)
        regular = stat.S_ISREG(status.st_mode)
        return FileStatus(status.st_size, status.st_mtime_ns, status.st_ctime_ns, regular)
    members, name = found
    status, size = os.stat(members.path), members.size(name)
    return FileStatus(size, status.st_mtime_ns, status.st_ctime_ns, True)


def sizes_and_times(folder: str, names: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return the first two of `file_status` of files below a folder, of very many in less than half the time.

    None of a file that is not there.

    Raises:
        ValueError: a name cannot be one.
        DataError: an archive cannot be read.
    """
    paths = [f"{folder}/{name}" for name in names]
    if _IN_ARCHIVE.search("/".join(paths) + "/") is not None:
        return _in_archives(paths)
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_size, status.st_mtime_ns))
    return found


def _in_archives(paths: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return what `sizes_and_times` does, where some may lie in archives; neighbours are in the same one."""
    found: list[tuple[int, int] | None] = []
    archive, members, modified = "", None, 0
    for path in paths:
        try:
            if members is None or not path.startswith(archive):
                size, modified = file_status(path)[:2]
                members = (in_archive := _in_archive(path)) and in_archive[0]
                archive = f"{members.path}/" if members else ""
            else:
                size = members.size(_member_name(path[len(archive) :]))
            found.append((size, modified))
        except OSError:
            found.append(None)
    return found


def digest_file(path: str | Path) -> str:
    """Return the BLAKE2b digest of a file's content, 128 bits in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def file_exists(path: str | Path) -> bool:
    """Tell whether there is a file, a link that leads nowhere, or a member of an archive."""
    found = _in_archive(path)
    return os.path.lexists(path) if found is None else found[1] in found[0].members


def is_other_than_folder(path: str | Path) -> bool:
    """Tell whether there is a file, a link that leads nowhere, or a member of an archive, and no folder.

    Raises:
        ValueError: its name cannot be one.
        DataError: the archive cannot be read.
    """
    if _in_archive(path) is not None:
        return file_exists(path) and not is_folder(path)
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return os.path.lexists(path)


def is_folder(path: str | Path) -> bool:
    """Tell whether a path is a folder, an archive, or a folder in one."""
    found = _in_archive(path)
    return os.path.isdir(path) if found is None else found[0].is_folder(found[1])


def list_entries(folder: Path) -> list[Entry]:
    """Return what lies directly in a folder, in the order of the file system.

    Raises:
        DataError: it cannot be listed.
    """
    return list(each_entry(folder))


def each_entry(folder: Path) -> Iterator[Entry]:
    """Return what `list_entries` does, one after the other: the folder is read no further than is asked.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        if (found := _in_archive(folder)) is not None:
            yield from found[0].entries(found[1])
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                yield Entry(entry.name, _is_folder(entry), entry.is_symlink())
    except OSError as error:
        raise _unlistable(folder, error) from error


def folder_identity(folder: Path) -> Hashable:
    """Return what is the same for two ways to one folder, and for them alone.

    Raises:
        DataError: it cannot be looked at.
    """
    if _in_archive(folder) is not None:
        return str(folder)
    try:
        status = folder.stat()
    except OSError as error:
        raise _unlistable(folder, error) from error
    return status.st_dev, status.st_ino


def folder_stamp(folder: Path) -> Hashable | None:
    """Return what changes with whatever is added to a folder, removed or renamed.

    None for a folder in an archive, and for one that changed so recently that its time may not tell.
    """
    if _in_archive(folder) is not None:
        return None
    try:
        status = folder.stat()
    except OSError as error:
        raise _unlistable(folder, error) from error
    settled = max(status.st_mtime_ns, status.st_ctime_ns) + SETTLED < time.time_ns()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns) if settled else None


def refused_members(root: Path) -> Mapping[str, str]:
    """Return the members of an archive that are left out, and why; none of a folder."""
    found = _in_archive(root)
    return {} if found is None else found[0].refused


def _in_archive(path: str | Path) -> tuple[MemberTable, str] | None:
    """Return the archive that a path leads into, and the rest of the path; None where there is none."""
    text = os.fspath(path)
    for ending in _IN_ARCHIVE.finditer(text):
        archive = text[: ending.end()]
        try:
            status = os.stat(archive)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode):
            members = _members(archive, status.st_size, status.st_mtime_ns)
            return members, _member_name(text[ending.end() :])
    return None


def _member_name(rest: str) -> str:
    """Return the name of a member from what follows its archive in a path."""
    return rest.replace("\\", "/").strip("/")


@lru_cache(maxsize=_OPEN_ARCHIVES)
def _members(archive: str, size: int, modified: int) -> MemberTable:
    """Read the directory of an archive, once in each process for as long as it does not change."""
    path = Path(archive)
    match path.suffix.lower():
        case ".zip":
            return read_zip(path)
        case ".parquet":
            return ParquetMembers(path)
    return read_tar(path)


def _unlistable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot list {printable(str(folder))}: {(error.strerror or '').lower()}.")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()  # asks the file system about links alone: the rest came with the listing
    except OSError:
        return False
