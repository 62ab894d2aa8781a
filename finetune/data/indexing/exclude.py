"""Leave out the images that a table names, without touching a file."""

from dataclasses import dataclass, replace

from finetune.data.index import ImageIndex
from finetune.data.indexing.image_names import DROP, KEEP, ImageNames, check_classes, named_column
from finetune.data.table import read_table
from finetune.text import printable

COLUMNS = ("image", "finding", "detail", "decision")
"""of the table that `finetune check` writes; the first and the last are read"""


@dataclass(frozen=True)
class Exclusions:
    """The images that a table excludes."""

    file: str
    """the table, as the config names it"""
    names: frozenset[str]


def read_exclusions(file: str, index: ImageIndex) -> Exclusions:
    """Read which images of an index a table excludes.

    That is each image that it names; where it has a column `decision`, those for which this says `drop`.

    Args:
        file: the table.
        index: all images of the data, before any is held out.

    Raises:
        DataError: no such table, or rows with images or decisions that cannot be.
    """
    table = read_table(file, errors="surrogateescape")
    cells = named_column(table, "image", key="exclude", columns="image and perhaps decision", command="check")
    decisions = [DROP] * len(cells)
    if any(heading.casefold() == "decision" for heading in table.header):
        decisions = [
            cell.strip().casefold()
            for cell in named_column(
                table, "decision", key="exclude", columns="image and decision", command="check"
            )
        ]
    names, excluded, faults = ImageNames(index), set[str](), []
    for number, (cell, decision) in enumerate(zip(cells, decisions, strict=True)):
        try:
            if decision not in (DROP, KEEP, ""):
                raise ValueError(f"decision {printable(decision)!r} is neither {KEEP} nor {DROP}")
            if decision == DROP:
                excluded.add(names.find(cell))
        except ValueError as fault:
            faults.append(f"{table.place(number)}: {fault}")
    if faults:
        table.refuse(faults)
    return Exclusions(file, frozenset(excluded))


def exclude(index: ImageIndex, exclusions: Exclusions) -> ImageIndex:
    """Return the index without some images, which its layout tells of.

    Raises:
        DataError: a class has no image to train on any more, or there is nothing to validate on.
    """
    left = tuple(sample for sample in index.samples if sample.name not in exclusions.names)
    number = len(index.samples) - len(left)
    because = f"data.exclude: {printable(exclusions.file)}"
    layout = index.layout and index.layout.without("image", because, number)
    return check_classes(index, replace(index, samples=left, layout=layout), because)
