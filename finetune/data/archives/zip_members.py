"""Read the members of a ZIP archive by their offsets, stored or deflated.

The standard library reads its directory. Its members are read here: it would seek in one open file, which
threads and forked processes cannot share.
"""

import stat
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from finetune.data.archives.members import Member, MemberTable, damaged
from finetune.data.archives.refusal import unpack_first, unreadable

_ENCRYPTED = 0x1
_HEADER = 30  # bytes of a member's own header, before its name
_DIRECTORY_ERRORS = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError)


class ZipMembers(MemberTable):
    """The members of a ZIP archive."""

    def _content(self, file: BinaryIO, member: Member) -> bytes:
        file.seek(member.offset)
        header = file.read(_HEADER)
        if len(header) != _HEADER or header[:4] != b"PK\3\4":
            raise damaged()
        # Only this header says how long its own name and extra field are; those of the directory may differ.
        beginning = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        file.seek(member.offset + _HEADER + beginning)
        content = file.read(member.stored)
        if member.deflated:
            content = _inflated(content, member.size)
        if len(content) != member.size or zlib.crc32(content) != member.checksum:
            raise damaged()
        return content


def read_zip(path: Path) -> ZipMembers:
    """Read the directory of a ZIP archive.

    Raises:
        DataError: it is encrypted, compressed in another way than by deflate, or no ZIP archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except _DIRECTORY_ERRORS as error:
        raise unreadable(path, "ZIP", error) from None
    del archive  # what it knows of each member is as large as the table
    table = ZipMembers(path)
    infos.reverse()
    while infos:
        info = infos.pop()
        if info.is_dir():
            table.add(info.filename, None)
        elif stat.S_ISLNK(info.external_attr >> 16):
            table.refused[info.filename] = "it is a link"
        elif info.flag_bits & _ENCRYPTED:
            raise unpack_first(path, "is encrypted", "unzip")
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise unpack_first(path, f"is compressed by method {info.compress_type}, not by deflate", "unzip")
        else:
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            table.add(
                info.filename,
                Member(info.header_offset, info.file_size, info.compress_size, deflated, info.CRC),
            )
    return table


def _inflated(content: bytes, size: int) -> bytes:
    """Inflate bytes, and no more of them than there should be: a bomb goes on."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return unpacker.decompress(content, size + 1)
    except zlib.error as error:
        raise damaged() from error
