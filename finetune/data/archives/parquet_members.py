"""Read the images in a Parquet file, as dataset hubs write them: bytes in a cell of each row.

A row is a member of the file as a picture is of an archive: `train.parquet/000012.jpg`. Parquet is decoded by
groups of rows, of which the last ones that were read are kept.
"""

import errno
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from posixpath import splitext
from threading import Lock
from typing import Any, NamedTuple

from finetune.choices import SUFFIXES
from finetune.data.archives.members import LARGEST_MEMBER, Member, MemberTable, damaged
from finetune.errors import DataError, MachineError
from finetune.text import printable, shortened

_KEPT = 512 << 20
"""bytes of decoded images that a process keeps; the last group of rows that was read, however large"""
_LARGEST_GROUP = 8 << 30
"""bytes of images that a group of rows may have once it is decoded"""
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")


class ImageColumn(NamedTuple):
    """A column of a Parquet file that holds images."""

    name: str
    content: str
    """the path of their bytes in the schema: `image.bytes`"""
    file_name: str | None
    """the path of the names that they had as files"""


def open_parquet(path: Path) -> Any:
    """Return pyarrow's view of a Parquet file, with its schema; no data is read.

    Raises:
        DataError: it is none.
        MachineError: pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise MachineError(
            f"{printable(str(path))}: reading Parquet takes pyarrow, which is not installed.\n"
            "Install it with `pip install 'finetune-vision[parquet]'`, or save the table as CSV."
        ) from None
    with readable_parquet(path):
        return parquet.ParquetFile(path, pre_buffer=False)


@contextmanager
def readable_parquet(path: Path) -> Iterator[None]:
    """Raise a DataError, which names the file, where what is read of it inside is damaged."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, ValueError) as error:
        reason = shortened(str(error), 300)
        raise DataError(f"{printable(str(path))} is not a Parquet file that can be read: {reason}.") from None


def image_columns(path: Path) -> list[ImageColumn]:
    """Return the columns of a Parquet file that hold images: bytes in a struct, or bytes that begin like one.

    Raises:
        DataError: it cannot be read, or the beginning of such a column cannot.
        MachineError: as `open_parquet`.
    """
    from pyarrow import types

    file, found = open_parquet(path), []
    with readable_parquet(path):
        for column in file.schema_arrow:
            if types.is_struct(column.type):
                kinds = {field.name: field.type for field in column.type}
                if "bytes" in kinds and _is_binary(kinds["bytes"]):
                    named = f"{column.name}.path" if "path" in kinds else None
                    found.append(ImageColumn(column.name, f"{column.name}.bytes", named))
            elif _is_binary(column.type) and _begins_like_image(file, column.name):
                found.append(ImageColumn(column.name, column.name, None))
    return found


def member_names(path: Path, column: ImageColumn, *, only: bool) -> list[str]:
    """Return the member of each row: `000012.jpg`, in a folder of its column unless it is the only one.

    Raises:
        DataError: the names that the images had as files cannot be read.
    """
    file = open_parquet(path)
    rows = file.metadata.num_rows
    names: list[str | None] = [None] * rows
    if column.file_name is not None:
        with readable_parquet(path):
            table = file.read(columns=[column.file_name], use_threads=False)
            names = [value and value.get("path") for value in table.column(0).to_pylist()]
    folder = "" if only else f"{column.name}/"
    endings = (splitext(str(name or ""))[1].lower() for name in names)
    return [
        f"{folder}{row:06d}{ending if ending in SUFFIXES else '.jpg'}" for row, ending in enumerate(endings)
    ]


class ParquetMembers(MemberTable):
    """The images in a Parquet file by their names."""

    def __init__(self, path: Path) -> None:
        """Find the images.

        Raises:
            DataError: it is no Parquet file, or too much at once.
        """
        super().__init__(path)
        metadata = open_parquet(path).metadata
        self._metadata = metadata
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        columns = image_columns(path)
        self._rows: dict[str, tuple[ImageColumn, int]] = {}
        for column in columns:
            for row, name in enumerate(member_names(path, column, only=len(columns) == 1)):
                self._rows[name] = (column, row)
                self.add(name, Member(row, 0, 0))
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = Lock()

    def size(self, name: str) -> int:
        """Return the bytes of a member."""
        self._member(name)
        column, row = self._rows[name]
        return self._sizes[column.name][row]

    def read(self, name: str) -> bytes:
        """Return the content of a member.

        Raises:
            OSError: there is no such member, its cell is empty, it is too large, or the file is damaged.
        """
        self._member(name)
        column, row = self._rows[name]
        group = bisect_right(self._starts, row) - 1
        value = self._images(column, group)[row - self._starts[group]]
        if not value.is_valid:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        content = value.as_py()
        if len(content) > LARGEST_MEMBER:
            raise OSError(
                errno.EFBIG, f"{len(content):,} bytes; no more than {LARGEST_MEMBER:,} are read of a member"
            )
        return bytes(content)

    def _images(self, column: ImageColumn, group: int) -> Any:
        """Return the bytes of the images of a group of rows, which is decoded unless it was just now."""
        key = (column.name, group)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            images = self._decoded(column, group)
            self._kept[key] = images
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _KEPT:
                self._kept.popitem(last=False)
            return images

    def _decoded(self, column: ImageColumn, group: int) -> Any:
        import pyarrow
        from pyarrow import parquet

        if self._metadata.row_group(group).total_byte_size > _LARGEST_GROUP:
            raise OSError(errno.EFBIG, f"group {group} of rows is larger than {_LARGEST_GROUP:,} bytes")
        try:
            # Opened anew each time: processes that were forked must not share a place in a file.
            with parquet.ParquetFile(self.path, metadata=self._metadata, pre_buffer=False) as file:
                table = file.read_row_group(group, columns=[column.content], use_threads=False)
        except (pyarrow.ArrowException, ValueError) as error:
            raise damaged() from error
        if table.num_rows != self._metadata.row_group(group).num_rows:
            raise damaged()
        return table.flatten().column(0)  # in chunks: more than 2 GB do not fit into one

    @cached_property
    def _sizes(self) -> dict[str, list[int]]:
        """The bytes of all images, for which each group of rows is decoded once."""
        from pyarrow import compute

        sizes: dict[str, list[int]] = {}
        for column, _ in self._rows.values():
            if column.name not in sizes:
                sizes[column.name] = [
                    length or 0
                    for group in range(self._metadata.num_row_groups)
                    for length in compute.binary_length(self._decoded(column, group)).to_pylist()
                ]
        return sizes


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _begins_like_image(file: Any, name: str) -> bool:
    """Tell whether the first value of a column begins as an image does."""
    for batch in file.iter_batches(batch_size=16, columns=[name], use_threads=False):
        values = [value for value in batch.column(0).to_pylist() if value]
        first = values[0] if values else b""
        return first.startswith(_BEGINNINGS) or (first[:4] == b"RIFF" and first[8:12] == b"WEBP")
    return False
