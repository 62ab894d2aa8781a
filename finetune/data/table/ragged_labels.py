"""Read rows without column names that end in one label or more, as Google AutoML and Vertex AI take them.

`TRAIN,gs://bucket/1.jpg,cat,outdoors` beside `TEST,gs://bucket/2.jpg,dog`: the split may be missing.
"""

import re
from collections.abc import Callable, Sequence

from finetune.data.table.delimited import Record
from finetune.data.table.json_objects import LIST_SEPARATOR

_NUMBER = re.compile(r"[-+]?\d*[.,]?\d+([eE][-+]?\d+)?")
_LOOKED_AT = 50
_FEWEST = 0.1  # share of rows with fewer labels than others


def join_ragged_labels(records: Sequence[Record], names_file: Callable[[str], bool]) -> list[Record] | None:
    """Return records of one width, with all labels of a row in its last cell; None for any other rows.

    A few short rows are faults, and so are cells that are empty at the end of rows without a split.

    Args:
        records: the cells of each line, none of them column names.
        names_file: tells whether some text is the name of an image.
    """
    rows = [(line, _stripped(cells)) for line, cells in records]
    widths = {len(cells) for _, cells in rows}
    image = next((n for n in (0, 1) if _names_files(rows, n, names_file)), None)
    if image is None or len(widths) < 2 or min(widths) < image + 1:
        return None
    short = sum(len(cells) < max(widths) for _, cells in rows)
    if short < _FEWEST * len(rows) or (image == 0 and len({len(cells) for _, cells in records}) == 1):
        return None
    labels = [cells[image + 1 :] for _, cells in rows]
    texts = {label for some in labels for label in some}
    if any(not text or LIST_SEPARATOR in text for text in texts) or any(map(_NUMBER.fullmatch, texts)):
        return None
    return [
        (line, [*cells[: image + 1], LIST_SEPARATOR.join(dict.fromkeys(some))])
        for (line, cells), some in zip(rows, labels, strict=True)
    ]


def _stripped(cells: Sequence[str]) -> list[str]:
    """Return cells without blanks around them and without empty ones at the end, which spreadsheets add."""
    found = [cell.strip() for cell in cells]
    while found and not found[-1]:
        found.pop()
    return found


def _names_files(rows: Sequence[Record], position: int, names_file: Callable[[str], bool]) -> bool:
    sample = [cells[position] for _, cells in rows[:_LOOKED_AT] if len(cells) > position]
    return 2 * sum(map(names_file, sample)) > len(sample)
