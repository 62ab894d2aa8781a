"""The trials of a sweep as SVG to stand in a page: how it went along, and the value by each key."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from finetune.report.plot.figure import render_svg
from finetune.text import printable, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for variables of the page's style, which differ by day and by night.
_SOFT, _LINE, _HIT, _MISS = "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _HIT: "rgb(var(--hit))",
    _MISS: "rgb(var(--miss))",
}
_PANEL = (312, 250)  # pixels of a panel on a screen
_NARROW = (340, 250)
_MOST_NAMES = 8  # of choices below a panel
_LETTERS = 12


class Point(NamedTuple):
    """A trial that has a value."""

    number: int
    value: float
    done: bool
    """rather than ended early, or running"""
    samples: Mapping[str, float | int | str]
    """what was drawn, by key"""


class Axis(NamedTuple):
    """A key of the space."""

    key: str
    logarithmic: bool
    labels: Sequence[str]
    """of choices; empty for numbers"""


class SweepPlot(NamedTuple):
    """What there is to draw."""

    points: Sequence[Point]
    axes: Sequence[Axis]
    percent: bool
    maximises: bool


def draw_sweep(plot: SweepPlot, *, narrow: bool = False) -> str:
    """Draw a panel for the order of trials and one for each key; `narrow` is for the width of a phone."""
    panels = 1 + len(plot.axes)
    columns = 1 if narrow else min(3, panels)
    rows = -(-panels // columns)
    width, height = _NARROW if narrow else _PANEL
    size = (width * columns, height * rows)
    svg = render_svg(*size, partial(_draw, plot, (rows, columns), size), salt=f"sweep {narrow}")
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg


def _draw(plot: SweepPlot, grid: tuple[int, int], size: tuple[int, int], figure: "Figure") -> None:
    panels = figure.subplots(*grid, squeeze=False).ravel()
    history, *others = panels
    _prepare(history, plot, "trial")
    _draw_history(history, plot)
    for axes, axis in zip(others, plot.axes, strict=False):
        _prepare(axes, plot, shortened(printable(axis.key), 40))
        _draw_key(axes, plot, axis)
    for axes in panels[1 + len(plot.axes) :]:
        axes.set_visible(False)
    width, height = size[0] / grid[1], size[1] / grid[0]
    left, right, top, bottom = 62, 12, 14, 52  # pixels around a panel
    figure.subplots_adjust(
        left=left / size[0],
        right=1 - right / size[0],
        top=1 - top / size[1],
        bottom=bottom / size[1],
        wspace=(left + right) / (width - left - right),
        hspace=(top + bottom) / (height - top - bottom),
    )


def _prepare(axes: "Axes", plot: SweepPlot, name: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_facecolor("none")
    axes.tick_params(length=3, color=_LINE, labelcolor=_SOFT, labelsize=9)
    axes.grid(axis="y", color=_LINE, lw=0.8)
    axes.spines[["right", "top"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.set_xlabel(name, color=_SOFT, size=10, parse_math=False)
    if plot.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_history(axes: "Axes", plot: SweepPlot) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    done = [point for point in plot.points if point.done]
    best = accumulate((point.value for point in done), max if plot.maximises else min)
    axes.plot([p.number for p in done], list(best), drawstyle="steps-post", color=_HIT, lw=1.5)
    _scatter(axes, [(point.number, point) for point in plot.points])


def _draw_key(axes: "Axes", plot: SweepPlot, axis: Axis) -> None:
    there = [point for point in plot.points if axis.key in point.samples]
    if axis.labels:
        places = {label: float(place) for place, label in enumerate(axis.labels)}
        _scatter(axes, [(places[str(point.samples[axis.key])], point) for point in there])
        shown = axis.labels if len(axis.labels) <= _MOST_NAMES else ()
        names = [shortened(printable(label), _LETTERS) for label in shown]
        axes.set_xticks(range(len(shown)), names, parse_math=False)
        axes.set_xlim(-0.5, len(axis.labels) - 0.5)
        return
    if axis.logarithmic:
        axes.set_xscale("log")
    _scatter(axes, [(float(point.samples[axis.key]), point) for point in there])


def _scatter(axes: "Axes", points: Sequence[tuple[float, Point]]) -> None:
    for done, face, edge in ((False, "none", _SOFT), (True, _HIT, _HIT)):
        own = [(x, point.value) for x, point in points if point.done is done]
        xs, ys = [x for x, _ in own], [y for _, y in own]
        axes.scatter(xs, ys, s=26, linewidths=1.2, zorder=3, facecolors=face, edgecolors=edge)
