"""Lay out tables and sentences for the width of a terminal: no number and no word is ever cut in two.

A table that is too wide gives way in this order: columns of text wrap at blanks, paths lose their beginning,
single long words and headings their end (…), and at last whole columns go, the least important first.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_GAP = 2
_SHORTEST = 8  # columns to which a long word is shortened
_SHORTEST_PATH = 14
_SHORTEST_HEADING = 5

# A number with its unit, or what stands in its place. The unit goes with its number: "0.13 s", "1.2 GiB".
_NUMBER = re.compile(r"[-+±−]?[0-9][0-9.,:]*(e[-+]?[0-9]+)?( ?%| [A-Za-z]{1,7})?", re.IGNORECASE)
_NO_NUMBER = ("", "–")
# A blank after which a unit follows its number, or that stands between a name and its percentage, or between
# the two rates of a slice.
_INNER_BLANK = re.compile(r" (?=[0-9.,]+%)|(?<=[0-9]) (?=[A-Za-z]{1,3}\b)|(?<=,) (?=(?:auto|[0-9.e-]+)\))")


@dataclass
class _Column:
    """A column of a table, and the width that it has come to."""

    heading: str
    cells: list[str]
    is_path: bool

    def __post_init__(self) -> None:
        self.is_number = all(_NUMBER.fullmatch(cell) or cell in _NO_NUMBER for cell in self.cells)
        self.width = max(map(text_width, [self.heading, *self.cells]))

    @property
    def whole_words(self) -> int:
        """The least width at which nothing is shortened."""
        words = self.heading.split() + [word for cell in self.cells for word in self._words(cell)]
        return max(map(text_width, words), default=0)

    @property
    def least(self) -> int:
        """The least width at which the column is still of use."""
        if self.is_path:
            return min(self.whole_words, _SHORTEST_PATH)
        if self.is_number:
            cells = max(map(text_width, self.cells), default=0)
            return max(cells, min(self.whole_words, _SHORTEST_HEADING))
        return min(self.whole_words, _SHORTEST)

    def lines(self, cell: str) -> list[str]:
        """Return the lines of a cell, each at most as wide as the column."""
        if self.is_path:
            return [shorten_path(cell, self.width)]
        return _wrap([_shorten_end(word, self.width) for word in self._words(cell)], self.width)

    def _words(self, cell: str) -> list[str]:
        if self.is_path or _NUMBER.fullmatch(cell):
            return [cell]
        words = _INNER_BLANK.sub("\0", cell).split(" ")
        return [word.replace("\0", " ") for word in words]


def table_lines(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    right: Collection[int] = (),
    paths: Collection[str] = (),
    least_important: Sequence[str] = (),
) -> tuple[list[str], list[str], list[str]]:
    """Return the lines of a table's head and of its rows, and the headings of columns that found no room.

    Args:
        headings: of the columns.
        rows: the cells as text.
        width: columns of the terminal.
        right: positions of the columns to align to the right.
        paths: headings of columns that hold paths, which are shortened from the left.
        least_important: headings in the order in which columns go if there is no room; after them they go
            from the right, never the first.
    """
    columns = [
        _Column(heading, [row[number] for row in rows], heading in paths)
        for number, heading in enumerate(headings)
    ]
    shown = _fit(columns, width, least_important)
    left_out = [column.heading for number, column in enumerate(columns) if number not in shown]
    head = _row_lines([(columns[n], columns[n].heading.strip(), n in right) for n in shown], heading=True)
    body: list[str] = []
    for number in range(len(rows)):
        body += _row_lines([(columns[n], columns[n].cells[number], n in right) for n in shown])
    return head, body, left_out


def text_width(text: str) -> int:
    """Return how many columns a text takes on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def shorten_path(path: str, width: int) -> str:
    """Shorten a path from the left: its end tells files apart."""
    if text_width(path) <= width:
        return path
    end = path
    while end and text_width(end) > width - 1:
        end = end[1:]
    return f"…{end}"


def wrap_sentence(line: str, width: int) -> list[str]:
    """Wrap a line at blanks, with what follows indented as the line is; a long path or word stays whole."""
    if text_width(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    words = _INNER_BLANK.sub("\0", line.strip()).split(" ")
    wrapped = _wrap([word.replace("\0", " ") for word in words], max(width - len(indent), 1))
    return [(indent + part).rstrip() for part in wrapped]


def wrap_text(text: str, width: int) -> str:
    """Wrap the lines of a text at blanks; one with a command stays whole, as it is there to be copied."""
    lines = [[line] if "finetune " in line else wrap_sentence(line, width) for line in text.split("\n")]
    return "\n".join(part for wrapped in lines for part in wrapped)


def _fit(columns: Sequence[_Column], width: int, least_important: Sequence[str]) -> list[int]:
    """Narrow columns until they fit, or leave some out; return the positions of those that are shown."""
    shown = list(range(len(columns)))
    going = sorted(
        shown[1:], key=lambda number: _importance(columns[number].heading, number, least_important)
    )
    while len(shown) > 1 and _total([columns[number].least for number in shown]) > width:
        shown.remove(going.pop(0))
    for floor in ("whole_words", "least"):
        floors = {number: min(getattr(columns[number], floor), columns[number].width) for number in shown}
        while (excess := _total([columns[number].width for number in shown]) - width) > 0:
            wide = [number for number in shown if columns[number].width > floors[number]]
            if not wide:
                break
            widest = max(wide, key=lambda number: columns[number].width)
            columns[widest].width -= min(excess, 1)
    return shown


def _importance(heading: str, number: int, least_important: Sequence[str]) -> tuple[int, int]:
    position = least_important.index(heading) if heading in least_important else len(least_important)
    return position, -number


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _row_lines(cells: Sequence[tuple[_Column, str, bool]], *, heading: bool = False) -> list[str]:
    """Return the lines of one row, padded between the columns and not at the end."""
    parts = []
    for column, text, _ in cells:
        words = [_shorten_end(word, column.width) for word in text.split(" ")]
        parts.append(_wrap(words, column.width) if heading else column.lines(text))
    lines = []
    for line in range(max(map(len, parts), default=0)):
        texts = []
        for (column, _, to_right), part in zip(cells, parts, strict=True):
            text = part[line] if line < len(part) else ""
            padding = " " * (column.width - text_width(text))
            texts.append(padding + text if to_right else text + padding)
        lines.append((" " * _GAP).join(texts).rstrip())
    return lines


def _shorten_end(word: str, width: int) -> str:
    if text_width(word) <= width:
        return word
    while word and text_width(word) > width - 1:
        word = word[:-1]
    return f"{word}…"


def _wrap(words: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and text_width(lines[-1]) + 1 + text_width(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
