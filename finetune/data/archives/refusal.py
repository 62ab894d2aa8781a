"""Say of an archive that cannot be read in place what to do with it."""

import shlex
from pathlib import Path

from finetune.errors import DataError
from finetune.text import printable

_PACKED = {
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\0": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
}


def unpack_first(
    path: Path, what: str, program: str, why: str = "its images cannot be read in place"
) -> DataError:
    """Return what to raise for an archive whose members cannot be read one by one."""
    name = shlex.quote(printable(path.name))
    folder = shlex.quote(printable(path.name.split(".")[0] or "images"))
    commands = {
        "unzip": f"unzip {name} -d {folder}",
        "tar": f"mkdir {folder} && tar -xf {name} -C {folder}",
        "7z": f"7z x {name} -o{folder}",
    }
    return DataError(
        f"{printable(str(path))} {what}: {why}.\n"
        f"Unpack it ({commands[program]}) and set data.path to the folder."
    )


def refuse_parquet(path: Path) -> DataError:
    """Return what to raise for an archive of Parquet files, of which only parts are read at a time."""
    program = "unzip" if path.suffix.lower() == ".zip" else "tar"
    return unpack_first(path, "holds Parquet", program, "that is not read inside an archive")


def unreadable(path: Path, kind: str, error: Exception) -> DataError:
    """Return what to raise for a file that is named like an archive and cannot be read as one."""
    refusal = refuse_packed(path)
    if refusal is not None:
        return refusal
    why = printable(str(error)).rstrip(".")
    return DataError(f"{printable(str(path))} is no {kind} archive that can be read: {why}.")


def refuse_packed(path: Path) -> DataError | None:
    """Return what to raise for a file that holds packed files, by its first bytes; None for any other."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        return None
    what = next((what for magic, what in _PACKED.items() if start.startswith(magic)), None)
    if what is None:
        return None
    if (
        what == _PACKED[b"\x1f\x8b"]
        and path.suffix.lower() == ".gz"
        and not path.stem.lower().endswith(".tar")
    ):
        name = printable(shlex.quote(path.name))
        return DataError(
            f"{printable(str(path))} is {what}, and no archive by its name.\n"
            f"Unpack it (gunzip -k {name}) and set data.path to what comes out."
        )
    return unpack_first(path, f"is {what}", "tar" if what.startswith("compressed") else "7z")
