"""The loss curve of a range test in the characters of a terminal.

Not by plotext: importing it takes 0.37 s, it has no output for a terminal that knows ASCII alone nor letters
that name several rates in one column, and its version 6 has none of the functions of version 5.
"""

import math
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from string import ascii_lowercase, digits
from unicodedata import combining, east_asian_width

from finetune.report.plot.lr_curve import (
    X_LABEL,
    Y_LABEL,
    CurvePlot,
    Marker,
    above,
    loss_range,
    position,
    rate_span,
    ticks,
)
from finetune.text import printable

# Bits of the dots of one braille character, by row and column of the dot (Unicode, "Braille Patterns").
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def draw_text(plot: CurvePlot, *, width: int, height: int = 12, ascii_only: bool = False) -> str:
    """Draw the smoothed curve in characters, with the rates below it.

    Args:
        plot: what to draw.
        width: columns of the longest line, labels of the axis included; 40 or more.
        height: lines of the plot itself, without title, axis and rates.
        ascii_only: whether the stream can hold nothing but ASCII.
    """
    bar, notch, corner, dash, tick, arrow, guide = "||+-+^:" if ascii_only else "│┤└─┬▲┊"
    low, high = loss_range(plot.smoothed, plot.smoothed)
    names = {0: f"{high:.3g}", height - 1: f"{low:.3g}"}
    left = max(len(name) for name in names.values()) + 2
    columns, span = max(10, width - left), rate_span(plot)
    named = {_column(lr, span, columns): name for lr, name in ticks(span).items()}
    letters = _letters(plot.markers, arrow)
    lettered = list(zip(plot.markers, letters, strict=True))
    marks = [(_column(marker.lr, span, columns), letter) for marker, letter in lettered]
    lines = []
    for y, row in enumerate(_braille_bits(plot, columns, height)):
        cells = [guide if (x, arrow) in marks else " " for x in range(columns)]
        for x, bits in enumerate(row):
            cells[x] = cells[x] if not bits else "*" if ascii_only else chr(0x2800 + bits)
        lines.append(f"{names.get(y, ''):>{left - 2}} {notch if y in names else bar}{''.join(cells)}")
    lines.append(" " * (left - 1) + corner + "".join(tick if x in named else dash for x in range(columns)))
    lines.append(_tick_line([(left + x, name) for x, name in named.items()], width))
    # Letters that share a column stand below each other.
    stacks = [[letter for place, letter in marks if place == x] for x in range(columns)]
    lines += [" " * left + "".join(row) for row in zip_longest(*stacks, fillvalue=" ")]
    legend = [f"{letter} {m.label} {m.lr:.3g}" + " (picked)" * m.picked for m, letter in lettered]
    lines = [
        *_wrapped(plot.title.split(" "), " ", width, ascii_only),
        *_wrapped(f"smoothed {Y_LABEL} by {X_LABEL}".split(" "), " ", width, ascii_only),
        *lines,
        *_wrapped([*legend, above(plot, high)], "   ", width, ascii_only),
    ]
    return "\n".join(line.rstrip() for line in lines if line)


def _column(lr: float, span: tuple[float, float], columns: int) -> int:
    """Place a rate in a column; a column is two dots wide."""
    return round(position(lr, span) * (2 * columns - 1)) // 2


def _braille_bits(plot: CurvePlot, columns: int, rows: int) -> list[list[int]]:
    """Draw the smoothed curve in dots: for each cell the bits of its braille character."""
    (low, high), span = loss_range(plot.smoothed, plot.smoothed), rate_span(plot)
    xs = [position(lr, span) * (2 * columns - 1) for lr in plot.lrs]
    # What leaves the frame is cut at one more height of it: the way to 1e30 has too many dots.
    ys = [max((high - loss) / (high - low), -1) * (4 * rows - 1) for loss in plot.smoothed]
    cells = [[0] * columns for _ in range(rows)]
    for (x, y), (next_x, next_y) in pairwise(zip(xs, ys, strict=True)):
        steps = max(1, math.ceil(max(next_x - x, abs(next_y - y))))
        for step in range(steps + 1):
            column, row = round(x + (next_x - x) * step / steps), round(y + (next_y - y) * step / steps)
            if row >= 0:
                cells[row // 4][column // 2] |= _BRAILLE[row % 4][column % 2]
    return cells


def _letters(markers: Sequence[Marker], arrow: str) -> list[str]:
    """Return each marker a character of its own, from its label if possible; the picked one an arrow."""
    letters: list[str] = []
    for marker in markers:
        wishes = [c for c in marker.label.lower() + ascii_lowercase + digits if c.isascii() and c.isalnum()]
        free = (c for c in wishes if c not in letters)
        letters.append(arrow if marker.picked else next(free, "?"))
    return letters


def _tick_line(ticks: Sequence[tuple[int, str]], width: int) -> str:
    """Write names below their columns; every second, third … where all would touch."""
    gap = min(after - before for (before, _), (after, _) in pairwise(ticks))
    every = math.ceil((max(len(name) for _, name in ticks) + 2) / gap)
    line = ""
    for place, name in ticks[::every]:
        start = max(0, min(place - (len(name) - 1) // 2, width - len(name)))
        if not line or start > len(line):  # the last name is moved to the left, where another may stand
            line = line.ljust(start) + name
    return line


def _wrapped(items: Sequence[str], gap: str, width: int, ascii_only: bool) -> list[str]:
    """Fill lines of at most `width` columns with items; an item that is longer is broken."""
    lines: list[str] = []
    for item in items:
        text = printable(item)
        text = text.encode("ascii", "backslashreplace").decode() if ascii_only else text
        if lines and _columns(lines[-1] + gap + text) <= width:
            lines[-1] += gap + text
            continue
        lines.append("")
        for character in text:
            if _columns(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _columns(text: str) -> int:
    """Count the columns that a terminal gives to a text: two for the wide letters of East Asia."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
