"""Names of classes that a list of images gives by number: a file beside it with one on each line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.choices import AUTO_ENCODING
from finetune.data.table.encoding import decode_text
from finetune.data.table.reader import Table
from finetune.errors import DataError
from finetune.text import counted, printable, shortened

_FILES = ("classes.txt", "class_names.txt", "synsets.txt")


def names_of_numbers(
    table: Table, labels: Sequence[tuple[str, ...] | None]
) -> tuple[Mapping[str, str], list[str]]:
    """Return the name of each number that is a label in a `.txt` list, and what is to be said of that.

    Nothing where labels are no numbers, or no file beside the list has names.

    Raises:
        DataError: the names do not fit the numbers.
    """
    numbers = {label for row in labels for label in row or ()}
    if table.path.suffix.lower() != ".txt" or not numbers or not all(map(_is_number, numbers)):
        return {}, []
    file = next((table.path.parent / name for name in _FILES if (table.path.parent / name).is_file()), None)
    if file is None or file == table.path:
        return {}, []
    names = _read_names(file, sorted({int(number) for number in numbers}))
    return {number: names[int(number)] for number in numbers}, [f"classes by number named in {file.name}"]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _read_names(file: Path, numbers: Sequence[int]) -> Mapping[int, str]:
    text, _ = decode_text(file, file.read_bytes(), AUTO_ENCODING, "strict")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [line.split(None, 1) for line in lines]
    shown = printable(shortened(str(file), 300))
    if lines and all(len(pair) == 2 and _is_number(pair[0]) for pair in pairs):
        names = {int(number): name for number, name in pairs}
    else:
        first = _first_number(shown, numbers, len(lines))
        names = dict(enumerate(lines, start=first))
    missing = [number for number in numbers if number not in names]
    if missing:
        raise DataError(
            f"{shown} has {counted(len(lines), 'name')}, and none for {counted(len(missing), 'number')} "
            f"of the list, such as {missing[0]}; add a line `{missing[0]} NAME`, or move the file away."
        )
    return names


def _first_number(shown: str, numbers: Sequence[int], names: int) -> int:
    """Tell whether numbers count from 0 or from 1.

    Raises:
        DataError: both may be.
    """
    if 0 not in numbers and numbers[-1] < names:
        raise DataError(
            f"{shown} has {counted(names, 'name')}, and the list the numbers {numbers[0]} to {numbers[-1]}: "
            f"they may count from 0 or from 1; write the number of each class before its name, as `0 NAME`."
        )
    return 0 if 0 in numbers else 1
