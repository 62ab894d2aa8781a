"""What the metadata of a data set means, learned from its training images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from finetune.data.index import ImageIndex, Sample
from finetune.data.metadata import Metadata, doubts, fit_metadata
from finetune.errors import DataError
from finetune.text import printable

_LISTED = 5


def learn_metadata(index: ImageIndex) -> ImageIndex:
    """Return the index with the meaning of its metadata, as its training images have it, and what is odd.

    Raises:
        DataError: a cell that is no number in a column of numbers.
    """
    if not index.columns.metadata:
        return index
    train = index.facts("train")
    metadata = fit_metadata(index.columns.metadata, train)
    check_numbers(metadata, map(_cells_of, index.samples))
    lines = [*doubts(metadata, train), *unseen_lines(metadata, index.facts("val"), "validation images")]
    return replace(index, metadata=metadata, warnings=(*index.warnings, *lines))


def apply_metadata(index: ImageIndex, told: Sequence[str], metadata: Metadata, source: str) -> ImageIndex:
    """Return the index of new images with the metadata of a trained model, and what to warn of.

    Args:
        index: its samples have the cells that the data tells.
        told: the names of these columns; those of other columns count as missing.
        metadata: what the model has learned.
        source: what the data is called.

    Raises:
        DataError: a cell that is no number in a column of numbers.
    """
    samples = tuple(
        sample._replace(metadata=cells_by_name(dict(zip(told, sample.metadata, strict=True)), metadata))
        for sample in index.samples
    )
    check_numbers(metadata, map(_cells_of, samples))
    lines = [*untold_lines(metadata, told, source)]
    lines += unseen_lines(metadata, [sample.metadata for sample in samples], "images")
    return replace(index, samples=samples, metadata=metadata, warnings=(*index.warnings, *lines))


def cells_by_name(cells: Mapping[str, str], metadata: Metadata) -> tuple[str, ...]:
    """Return cells in the order of the columns, empty where there is none."""
    return tuple(cells.get(name, "") for name in metadata.names)


def untold_lines(metadata: Metadata, told: Sequence[str], source: str) -> list[str]:
    """Tell which columns the data does not have."""
    absent = [repr(name) for name in metadata.names if name not in told]
    if not absent:
        return []
    one = len(absent) == 1
    what = f"metadata column {absent[0]} is" if one else f"metadata columns {', '.join(absent)} are"
    return [f"{what} not in {source}; the model takes {'it' if one else 'them'} for missing"]


def check_numbers(metadata: Metadata, told: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Refuse cells that are no numbers in columns of numbers.

    Args:
        metadata: what the columns are.
        told: of each image what it is called, and its cells.

    Raises:
        DataError: there are some.
    """
    wrong = [(what, found) for what, cells in told if (found := metadata.no_number(cells))]
    if wrong:
        what, (name, cell) = wrong[0]
        raise DataError(
            f"{what}: {name} {cell!r} is no number, as the column has in training"
            f"{f', and {len(wrong) - 1} more' * (len(wrong) > 1)}; leave a cell empty if it is not known."
        )


def _cells_of(sample: Sample) -> tuple[str, Sequence[str]]:
    where = f"{sample.place}: " if sample.place else ""
    return f"{where}{printable(sample.name)}", sample.metadata


def unseen_lines(metadata: Metadata, rows: Sequence[Sequence[str]], images: str) -> list[str]:
    """Tell of categories that training has not seen, a line for each column.

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
    return names + (f" and {len(most) - _LISTED} more" if len(most) > _LISTED else "")
