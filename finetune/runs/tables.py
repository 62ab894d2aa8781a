"""The tables of a run, as bytes and back: its split, and the fingerprints of its images."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast, get_args

from finetune.choices import Split
from finetune.data.index import SPLIT_HEADER
from finetune.data.quality.fingerprint import Fingerprint
from finetune.machine.files import csv_bytes
from finetune.text import protect_cell, unprotect_cell

_FILES_HEADER = ("image", *Fingerprint._fields)


class SplitRow(NamedTuple):
    """One image in the record of a split."""

    name: str
    split: Split
    class_name: str
    metadata: tuple[str, ...]
    """The cells of its metadata columns."""


def split_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """Return the content of split.csv: image name, split, class and metadata of every image."""
    return csv_bytes(header, ([protect_cell(cell) for cell in row] for row in rows))


def parse_split(text: str) -> list[SplitRow]:
    """Parse the content of split.csv.

    Raises:
        ValueError: it is not what `split_bytes` returned.
    """
    header, *rows = [tuple(map(unprotect_cell, row)) for row in _cells(text)] or [()]
    begins_well = header[: len(SPLIT_HEADER)] == SPLIT_HEADER
    if not begins_well or not all(len(r) == len(header) and r[1] in get_args(Split) for r in rows):
        raise ValueError("not the split of a run")
    return [SplitRow(name, cast(Split, split), of, tuple(cells)) for name, split, of, *cells in rows]


def files_bytes(files: Mapping[str, Fingerprint]) -> bytes:
    """Return the content of files.csv: the fingerprint of every image by name."""
    return csv_bytes(_FILES_HEADER, ([protect_cell(name), *mark] for name, mark in files.items()))


def parse_files(text: str) -> dict[str, Fingerprint]:
    """Parse the content of files.csv.

    Raises:
        ValueError: it is not what `files_bytes` returned.
    """
    return {
        unprotect_cell(name): Fingerprint(int(size), int(modified), digest)
        for name, size, modified, digest in _cells(text)[1:]
    }


def _cells(text: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise ValueError(str(error)) from None
