"""What an archive holds: where each member lies in its file, and what was refused of it."""

import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

LARGEST_MEMBER = 256 << 20
"""bytes that a member may have once it is read: five times the pixels of the largest image that is read"""

_DRIVE = re.compile(r"[A-Za-z]:")


class Member(NamedTuple):
    """A file in an archive."""

    offset: int
    """where it begins in the archive: in a ZIP its header, in a TAR its bytes"""
    size: int
    """bytes that it has"""
    stored: int
    """bytes that it takes in the archive"""
    deflated: bool = False
    checksum: int | None = None
    """CRC-32 of its bytes, where the archive has one"""


class Entry(NamedTuple):
    """What lies directly in a folder."""

    name: str
    is_folder: bool
    """or a link to one; a link that leads nowhere or in a circle of links is none"""
    is_link: bool


@dataclass
class MemberTable:
    """The members of an archive by their paths, and the folders that these make."""

    path: Path
    members: dict[str, Member] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """what is left out, and why"""
    _folders: dict[str, dict[str, bool]] = field(default_factory=lambda: {"": {}})

    def add(self, name: str, member: Member | None) -> None:
        """Add a member by the name that the archive has for it; None is a folder."""
        # Most lie beside one whose path has been looked at: of very many, that is what takes the time.
        folder, _, last = name.rpartition("/")
        beside = self._folders.get(folder)
        if folder and beside is not None and member is not None and _is_plain(last) and last not in beside:
            self.members[name] = member
            beside[last] = False
            return
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if name.startswith(("/", "\\")) or ".." in parts or _DRIVE.match(name):
            self.refused[name] = "its path leads out of the archive"
            return
        path = "/".join(parts)
        if member is not None and path:
            if path in self.members:
                self.refused[name] = "a later member has the same name"
            self.members[path] = member
        elif path:
            self._folders.setdefault(path, {})
        while parts:
            *parts, last = parts
            beside = self._folders.setdefault("/".join(parts), {})
            if beside.get(last):  # a folder, and so are those above it
                break
            beside[last] = member is None
            member = None

    def entries(self, folder: str) -> list[Entry]:
        """Return what lies directly in a folder.

        Raises:
            OSError: there is no such folder.
        """
        try:
            return [Entry(name, is_folder, False) for name, is_folder in self._folders[folder].items()]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def is_folder(self, name: str) -> bool:
        """Tell whether there is a folder of a name; the archive itself is one."""
        return name in self._folders

    def size(self, name: str) -> int:
        """Return the bytes of a member.

        Raises:
            OSError: there is no such member.
        """
        return self._member(name).size

    def read(self, name: str) -> bytes:
        """Return the content of a member.

        Raises:
            OSError: there is no such member, it is too large, or it is damaged.
        """
        member = self._member(name)
        if member.size > LARGEST_MEMBER:
            raise OSError(
                errno.EFBIG, f"{member.size:,} bytes; no more than {LARGEST_MEMBER:,} are read of a member"
            )
        with open(self.path, "rb") as file:
            return self._content(file, member)

    def _content(self, file: BinaryIO, member: Member) -> bytes:
        """Return the bytes of a member that lies in the archive as it is."""
        file.seek(member.offset)
        content = file.read(member.size)
        if len(content) != member.size:
            raise damaged()
        return content

    def _member(self, name: str) -> Member:
        try:
            return self.members[name]
        except KeyError:
            code = errno.EISDIR if self.is_folder(name) else errno.ENOENT
            raise OSError(code, os.strerror(code)) from None


def _is_plain(name: str) -> bool:
    """Tell whether the last part of a path is a name, wherever the archive was made."""
    return name not in ("", ".", "..") and "\\" not in name


def damaged() -> OSError:
    """Return what to raise for a member that is not what the archive says."""
    return OSError(errno.EIO, "damaged in its archive")
