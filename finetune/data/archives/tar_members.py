"""Read the members of an uncompressed TAR archive by their offsets."""

import tarfile
from pathlib import Path

from finetune.data.archives.members import Member, MemberTable
from finetune.data.archives.refusal import unreadable

_DIRECTORY_ERRORS = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError)


def read_tar(path: Path) -> MemberTable:
    """Read the headers of all members of a TAR archive.

    Raises:
        DataError: it is no TAR archive, or its headers are damaged.
    """
    table = MemberTable(path)
    try:
        with tarfile.open(path, "r:", errorlevel=0) as archive:
            while (info := archive.next()) is not None:
                _add(table, info)
                archive.members = []  # type: ignore[attr-defined]  # else it keeps a kilobyte for each
            _check_end(path, archive.offset)
    except _DIRECTORY_ERRORS as error:
        raise unreadable(path, "TAR", error) from None
    return table


def _add(table: MemberTable, info: tarfile.TarInfo) -> None:
    if info.isdir():
        table.add(info.name, None)
    elif info.issym() or info.islnk():
        table.refused[info.name] = "it is a link"
    elif not info.isreg() or info.issparse():
        table.refused[info.name] = "it is no plain file"
    else:
        table.add(info.name, Member(info.offset_data, info.size, info.size))


def _check_end(path: Path, offset: int) -> None:
    """Tell the end of the archive from a damaged header, which the standard library takes for one.

    Raises:
        ValueError: there is something else than the end.
    """
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise ValueError(f"damaged at byte {offset:,}")
