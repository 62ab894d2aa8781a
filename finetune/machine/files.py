"""Write files so that one that is there is whole: temporary name, flush, rename, flush the folder."""

import contextlib
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from os.path import exists, isdir
from pathlib import Path

from finetune.errors import ConfigError, NotWritableError, ResourceError


def write_file(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically; refuses NaN, which is not JSON."""
    write_bytes(path, json_bytes(value))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically."""
    write_bytes(path, csv_bytes(header, rows))


def json_bytes(value: object) -> bytes:
    """Return the content of a JSON file; refuses NaN, which is not JSON."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode("utf-8", "surrogateescape")


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return the content of a CSV file."""
    import csv

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: temporary name, flush, rename, flush the folder.

    Raises:
        ResourceError: the system refuses; what was at `path` before is still there.
    """
    stage_bytes(path, content)
    publish(path)


def staged(path: Path) -> Path:
    """Return the temporary name under which the next content of a file is written."""
    return path.with_name(f".{path.name}.tmp")


def check_unused(target: Path) -> None:
    """Refuse a file that is there, to which somebody may have added what nobody wants to lose.

    Raises:
        ConfigError: it is.
    """
    if exists(target):
        raise ConfigError(f"{target}: exists already and is left alone; name another file")


def try_writing(path: Path) -> None:
    """Make sure that `write_bytes` can write a file, before the work whose result it is to hold.

    Raises:
        ResourceError: as `write_bytes`.
    """
    with reported_disk_errors(path):
        if isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        staged(path).open("ab").close()
        staged(path).unlink()


def stage_bytes(path: Path, content: bytes) -> None:
    """Write what a file is to hold next under its temporary name, until it has reached the disk.

    Raises:
        ResourceError: the system refuses.
    """
    with reported_disk_errors(path):
        try:
            with open(staged(path), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            staged(path).unlink(missing_ok=True)
            raise


def publish(path: Path) -> None:
    """Rename what was staged for a file to its name.

    Raises:
        ResourceError: the system refuses.
    """
    with reported_disk_errors(path):
        try:
            os.replace(staged(path), path)
        except OSError:
            staged(path).unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


@contextlib.contextmanager
def reported_disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` into a ResourceError.

    Raises:
        NotWritableError: it may not be written.
        ResourceError: any other refusal.
    """
    try:
        yield
    except OSError as error:
        # Where nothing was saved before, that it is intact would mislead.
        before = " What was saved before is intact." if exists(path) else ""
        refused = isinstance(error, PermissionError) or error.errno == errno.EROFS
        kind = NotWritableError if refused else ResourceError
        raise kind(f"Cannot write {path}: {error.strerror or error}.{before}") from None


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
