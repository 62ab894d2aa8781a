"""The loss curve of a learning-rate range test: as a picture for a file, as text for a terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, zip_longest
from statistics import median_low
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

import numpy as np

from finetune.report.plot.figure import GREY, INK, PALE, render, write
from finetune.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_X_LABEL, _Y_LABEL = "learning rate of the head", "loss of the batch"

# Pixels of the picture: its size, what stays free around the axes, the height of a row of labels above them.
_WIDTH, _HEIGHT = 1000, 600
_LEFT, _RIGHT, _BOTTOM, _TOP, _ROW = 76, 24, 84, 58, 22
_INNER = _WIDTH - _LEFT - _RIGHT

_CURVE, _RAW, _PICKED, _RED = "#1f5fae", "#7fa9d8", "#d9600a", "#b3202c"

# Bits of the dots of one braille character, by row and column of the dot (Unicode, "Braille Patterns").
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


@dataclass(frozen=True)
class Marker:
    """A rate to point out."""

    label: str
    """Name of the rate: "valley", "steepest" …; what lies above a "divergence" is shaded."""
    lr: float
    """Learning rate, above 0."""
    picked: bool = False
    """Whether this is the rate to train with."""


@dataclass(frozen=True)
class CurvePlot:
    """What there is to draw.

    Raises:
        ValueError: there are fewer than 2 points, the lengths differ, or a rate has no place on a log axis.
    """

    title: str
    lrs: Sequence[float]
    """Learning rates (N,), rising, geometric."""
    losses: Sequence[float]
    """Raw losses (N,), as measured, all finite."""
    smoothed: Sequence[float]
    """Smoothed losses (N,)."""
    markers: Sequence[Marker]

    def __post_init__(self) -> None:
        if not 2 <= len(self.lrs) == len(self.losses) == len(self.smoothed):
            counts = (
                f"{len(self.lrs)} rates, {len(self.losses)} losses and {len(self.smoothed)} smoothed ones"
            )
            raise ValueError(f"{counts}: a curve needs as many of each, and at least 2 points")
        if not (0 < self.lrs[0] < self.lrs[-1] and all(marker.lr > 0 for marker in self.markers)):
            raise ValueError("learning rates must be above 0 and rise")


def draw_png(plot: CurvePlot) -> bytes:
    """Draw the curve as a PNG of 1000 × 600 pixels; equal plots give equal bytes."""
    return render(_WIDTH, _HEIGHT, partial(_draw, plot))


def _draw(plot: CurvePlot, figure: "Figure") -> None:
    title = write(figure, plot.title, "", limit=_INNER, bold=True, size=13)
    title.set(x=_LEFT / _WIDTH, y=1 - 30 / _HEIGHT, color=INK)
    low, high = _rate_span(plot)
    span = low * (low / high) ** 0.02, high * (high / low) ** 0.02
    labels = [write(figure, m.label, f"  {m.lr:.3g}", limit=_INNER / 3, bold=m.picked) for m in plot.markers]
    xs = [_INNER * _position(marker.lr, span) for marker in plot.markers]
    places = _label_places(xs, [label.get_window_extent().width + 14 for label in labels])
    height = _HEIGHT - _BOTTOM - _TOP - _ROW * (1 + max((row for row, _ in places), default=0))
    axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, _INNER / _WIDTH, height / _HEIGHT))
    axes.set_xscale("log")
    axes.set_xlim(*span)
    _draw_curves(axes, plot)
    for marker, label, x, (row, side) in zip(plot.markers, labels, xs, places, strict=True):
        top = height + _ROW * (row + 0.6)
        color = _draw_marker(axes, plot, marker, top / height)
        label.set(x=(_LEFT + x + 6 * side) / _WIDTH, y=(_BOTTOM + top) / _HEIGHT, color=color)
        label.set_horizontalalignment("left" if side > 0 else "right")


def _draw_curves(axes: "Axes", plot: CurvePlot) -> None:
    ticks = _ticks(_rate_span(plot))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.grid(color=PALE, lw=0.8)
    axes.tick_params(length=0, pad=7, labelcolor=GREY, labelsize=10)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.set_xlabel(_X_LABEL, color=INK, labelpad=9, size=11)
    axes.set_ylabel(_Y_LABEL, color=INK, labelpad=9, size=11)
    low, high = _loss_range([*plot.losses, *plot.smoothed], plot.smoothed)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.plot(plot.lrs, plot.losses, color=_RAW, lw=0.7, marker="o", ms=2.6, alpha=0.65, label="each batch")
    axes.plot(plot.lrs, plot.smoothed, color=_CURVE, lw=2.6, solid_capstyle="round", label="smoothed")
    # The legend stands below the axes, where no curve ever is.
    x, right, y = _LEFT / _WIDTH, 1 - _RIGHT / _WIDTH, 40 / _HEIGHT
    axes.figure.legend(
        loc="center left", bbox_to_anchor=(x, y), ncols=2, frameon=False, borderaxespad=-0.4, labelcolor=GREY
    )
    axes.figure.text(right, y, _above(plot, high), color=GREY, size=10, ha="right", va="center")


def _draw_marker(axes: "Axes", plot: CurvePlot, marker: Marker, top: float) -> str:
    """Draw a line up to `top` times the height of the axes, a dot on the curve; give their colour."""
    width, size, order = (2, 9, 5) if marker.picked else (1, 6, 4)
    color = _PICKED if marker.picked else _RED if marker.label == "divergence" else GREY
    if marker.label == "divergence":
        axes.axvspan(marker.lr, axes.get_xlim()[1], color=_RED, alpha=0.06, lw=0)
    axes.axvline(marker.lr, 0, top, color=color, lw=width, zorder=order - 2).set_clip_on(False)
    if plot.lrs[0] <= marker.lr <= plot.lrs[-1]:
        loss = np.interp(math.log(marker.lr), np.log(plot.lrs), plot.smoothed)
        axes.plot(marker.lr, loss, "o", color=color, ms=size, mec="white", mew=1.2, zorder=order)
    return color


def _label_places(xs: Sequence[float], widths: Sequence[float]) -> list[tuple[int, int]]:
    """Return each label a row and a side of its line (1: right, -1: left), so that it covers nothing else.

    Right of their lines, labels lie above those that start below them; left, where the border demands it,
    above all lines they reach back to. A label that is too long for both sides may cover a line. In pixels.
    """
    order = sorted(range(len(xs)), key=xs.__getitem__)
    sides, border = [1] * len(xs), float(_INNER)
    for i in reversed(order):
        if xs[i] + widths[i] > border and xs[i] > widths[i]:
            sides[i], border = -1, xs[i]
    rows: dict[int, int] = {}
    ends = [sorted((x, x + side * width)) for x, side, width in zip(xs, sides, widths, strict=True)]
    for i in sorted(order, key=lambda i: (-sides[i], -sides[i] * xs[i])):
        covered = (rows[j] for j in rows if ends[i][0] <= ends[j][1] and ends[j][0] <= ends[i][1])
        rows[i] = 1 + max(covered, default=-1)
    return [(rows[i], sides[i]) for i in range(len(xs))]


def draw_text(plot: CurvePlot, *, width: int, height: int = 12, ascii_only: bool = False) -> str:
    """Draw the smoothed curve in characters, with the rates below it.

    Args:
        plot: what to draw.
        width: columns of the longest line, labels of the axis included; 40 or more.
        height: lines of the plot itself, without title, axis and rates.
        ascii_only: whether the stream can hold nothing but ASCII.
    """
    bar, notch, corner, dash, tick, arrow, guide = "||+-+^:" if ascii_only else "│┤└─┬▲┊"
    low, high = _loss_range(plot.smoothed, plot.smoothed)
    names = {0: f"{high:.3g}", height - 1: f"{low:.3g}"}
    left = max(len(name) for name in names.values()) + 2
    columns, span = max(10, width - left), _rate_span(plot)
    ticks = {_column(lr, span, columns): name for lr, name in _ticks(span).items()}
    letters = _letters(plot.markers, arrow)
    lettered = list(zip(plot.markers, letters, strict=True))
    marks = [(_column(marker.lr, span, columns), letter) for marker, letter in lettered]
    lines = []
    for y, row in enumerate(_braille_bits(plot, columns, height)):
        cells = [guide if (x, arrow) in marks else " " for x in range(columns)]
        for x, bits in enumerate(row):
            cells[x] = cells[x] if not bits else "*" if ascii_only else chr(0x2800 + bits)
        lines.append(f"{names.get(y, ''):>{left - 2}} {notch if y in names else bar}{''.join(cells)}")
    lines.append(" " * (left - 1) + corner + "".join(tick if x in ticks else dash for x in range(columns)))
    lines.append(_tick_line([(left + x, name) for x, name in ticks.items()], width))
    # Letters that share a column stand below each other.
    stacks = [[letter for place, letter in marks if place == x] for x in range(columns)]
    lines += [" " * left + "".join(row) for row in zip_longest(*stacks, fillvalue=" ")]
    legend = [f"{letter} {m.label} {m.lr:.3g}" + " (picked)" * m.picked for m, letter in lettered]
    lines = [
        *_wrapped(plot.title.split(" "), " ", width, ascii_only),
        *_wrapped(f"smoothed {_Y_LABEL} by {_X_LABEL}".split(" "), " ", width, ascii_only),
        *lines,
        *_wrapped([*legend, _above(plot, high)], "   ", width, ascii_only),
    ]
    return "\n".join(line.rstrip() for line in lines if line)


def _loss_range(shown: Sequence[float], smoothed: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest loss to draw: the fall in full, of the explosion only its start."""
    start = median_low(smoothed[: max(3, len(smoothed) // 10)])
    low = min(shown)
    high = min(max(shown), start + max(0.5 * (start - low), 0.1 * abs(start)))
    # What moves by less than a twentieth is flat, and has to look it.
    missing = max(0.0, (0.05 * abs(start) or 1.0) - (high - low))
    # Not in the middle, a border between two rows of dots, where rounding would make it jump.
    return low - missing / 3, high + missing * 2 / 3


def _above(plot: CurvePlot, high: float) -> str:
    """Say how far the curve goes on above the frame, if it does."""
    return f"the curve goes up to {max(plot.smoothed):.3g}" if max(plot.smoothed) > high else ""


def _rate_span(plot: CurvePlot) -> tuple[float, float]:
    """Return the lowest and the highest rate to draw."""
    rates = [plot.lrs[0], plot.lrs[-1], *(marker.lr for marker in plot.markers)]
    return min(rates), max(rates)


def _position(lr: float, span: tuple[float, float]) -> float:
    """Place a rate on the log axis, 0–1."""
    return math.log(lr / span[0]) / math.log(span[1] / span[0])


def _column(lr: float, span: tuple[float, float], columns: int) -> int:
    """Place a rate in a column; a column is two dots wide."""
    return round(_position(lr, span) * (2 * columns - 1)) // 2


def _ticks(span: tuple[float, float]) -> dict[float, str]:
    """Name the powers of ten in the span, or the next best where there are not two of them."""
    decades = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
    for leading in (1,), (1, 2, 5):
        names = [f"{digit}e{decade:+}" for decade in decades for digit in leading]
        # Computed rates end at 0.9999999 of the decade that was meant.
        inside = [name for name in names if -1e-6 <= _position(float(name), span) <= 1 + 1e-6]
        if len(inside) > 1:
            return {float(name): name for name in inside}
    return {lr: f"{lr:.3g}" for lr in span}


def _braille_bits(plot: CurvePlot, columns: int, rows: int) -> list[list[int]]:
    """Draw the smoothed curve in dots: for each cell the bits of its braille character."""
    (low, high), span = _loss_range(plot.smoothed, plot.smoothed), _rate_span(plot)
    xs = [_position(lr, span) * (2 * columns - 1) for lr in plot.lrs]
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
        line = line.ljust(max(0, min(place - (len(name) - 1) // 2, width - len(name)))) + name
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
