"""What the metadata of a data set means, learned from its training images, and whether other data fits it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from finetune.data.index import ImageIndex, Sample
from finetune.data.metadata import Metadata, Row, doubts, first_non_number, fit_metadata, metadata_row
from finetune.errors import DataError
from finetune.text import printable

_LISTED = 5


class NewCells(NamedTuple):
    """The metadata of an image that was not trained on."""

    image: str
    """what the image is called in a message"""
    cells: Mapping[str, str]
    """by the name of the column; those of other columns count as missing"""


def learn_metadata(index: ImageIndex) -> ImageIndex:
    """Return the index with the meaning of its metadata, learned from its training images, and warnings.

    Raises:
        DataError: a cell that is no number in a column of numbers.
    """
    if not index.columns.metadata:
        return index
    train = index.metadata_rows("train")
    metadata = fit_metadata(index.columns.metadata, train)
    _check_numbers(metadata, ((_name_of(sample), sample.metadata) for sample in index.samples))
    lines = [*doubts(metadata, train)]
    lines += _unseen_lines(metadata, index.metadata_rows("val"), "validation images")
    return replace(index, metadata=metadata, warnings=(*index.warnings, *lines))


def apply_metadata(index: ImageIndex, columns: Sequence[str], metadata: Metadata, source: str) -> ImageIndex:
    """Return the index of new images with the metadata of a trained model, and warnings.

    Args:
        index: its samples have the cells of `columns`.
        columns: the names of the metadata columns that the data has.
        metadata: what the model has learned.
        source: what the data is called.

    Raises:
        DataError: a cell that is no number in a column of numbers.
    """
    given = [
        NewCells(_name_of(sample), dict(zip(columns, sample.metadata, strict=True)))
        for sample in index.samples
    ]
    rows, lines = rows_of_new_images(metadata, given, columns, source)
    samples = tuple(s._replace(metadata=row) for s, row in zip(index.samples, rows, strict=True))
    return replace(index, samples=samples, metadata=metadata, warnings=(*index.warnings, *lines))


def rows_of_new_images(
    metadata: Metadata, given: Sequence[NewCells], columns: Collection[str], source: str
) -> tuple[list[Row], list[str]]:
    """Return the metadata of images as a trained model takes it, and warnings of what is missing or new.

    Args:
        metadata: what the model has learned.
        given: the cells of each image.
        columns: the names of the columns that the data has.
        source: what the data is called.

    Raises:
        DataError: a cell that is no number in a column of numbers.
    """
    rows = [metadata_row(metadata.names, cells) for _, cells in given]
    _check_numbers(metadata, ((image, row) for (image, _), row in zip(given, rows, strict=True)))
    lines = [*_missing_lines(metadata, columns, source), *_unseen_lines(metadata, rows, "images")]
    return rows, lines


def _missing_lines(metadata: Metadata, columns: Collection[str], source: str) -> list[str]:
    """Return a warning of the columns that the data does not have."""
    absent = [repr(name) for name in metadata.names if name not in columns]
    if not absent:
        return []
    one = len(absent) == 1
    what = f"metadata column {absent[0]} is" if one else f"metadata columns {', '.join(absent)} are"
    return [f"{what} not in {source}; the model treats {'it' if one else 'them'} as missing"]


def _check_numbers(metadata: Metadata, rows: Iterable[tuple[str, Row]]) -> None:
    """Refuse cells that are no numbers in columns of numbers.

    Args:
        metadata: what the columns are.
        rows: of each image what it is called, and its cells.

    Raises:
        DataError: there are some.
    """
    wrong = [(image, found) for image, row in rows if (found := first_non_number(metadata.kinds, row))]
    if wrong:
        image, (name, cell) = wrong[0]
        raise DataError(
            f"{image}: {name} {cell!r} is no number, as the column has in training"
            f"{f', and {len(wrong) - 1:,} more' * (len(wrong) > 1)}; leave a cell empty if it is not known."
        )


def _name_of(sample: Sample) -> str:
    where = f"{sample.place}: " if sample.place else ""
    return f"{where}{printable(sample.name)}"


def _unseen_lines(metadata: Metadata, rows: Sequence[Row], images: str) -> list[str]:
    """Return warnings of categories that training has not seen, one for each column.

    Args:
        metadata: what training has seen.
        rows: the cells of some images.
        images: what these are called.
    """
    return [
        f"metadata column {name!r}: {sum(counts.values()):,} of {len(rows):,} {images} have categories that "
        f"training has not seen, {_listed(counts)}; they count as missing"
        for name, counts in metadata.unseen(rows).items()
    ]


def _listed(counts: Mapping[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = ", ".join(f"{name!r} ({number:,})" for name, number in most[:_LISTED])
    return names + (f" and {len(most) - _LISTED:,} more" if len(most) > _LISTED else "")
