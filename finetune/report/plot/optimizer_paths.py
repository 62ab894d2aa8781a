"""The paths of optimizers over the contours of functions of two variables: a picture for a lecture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from finetune.report.plot.figure import GREY, INK, render, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Point = tuple[float, float]
Family = Literal["gradient", "mean", "scale", "both", "sign"]

# Pixels of the picture: its size, what is free beside, between, below and above the axes of its two panels.
_WIDTH, _HEIGHT = 1600, 1000
_SIDE, _GAP, _BOTTOM, _TOP = 58, 84, 178, 196
_INNER = (_WIDTH - 2 * _SIDE - _GAP) // 2

# A hue for each way to use gradients, its shades and the markers for those who share it.
_FAMILIES: Mapping[Family, tuple[str, tuple[str, ...]]] = {
    "gradient": ("the gradient", (INK,)),
    "mean": ("a mean of gradients", ("#1f5fae", "#35a7ec")),
    "scale": ("gradients scaled by their size", ("#0d6b3a", "#4fae2a", "#a3a012")),
    "both": ("a scaled mean", ("#d3340f", "#f08a10", "#8e1b52", "#ea5fa6", "#7b4fc9")),
    "sign": ("the sign of a mean", ("#80501f",)),
}
_MARKERS = "osD^v"
_LOW, _HIGH, _CONTOUR, _GOAL, _GOAL_EDGE = "#cfdbe8", "#ffffff", "#a9b7c6", "#fde9a6", "#e3a500"
_LEVELS, _GRID = 20, 300


@dataclass(frozen=True)
class Trail:
    """The path of one optimizer, or of several that take the same."""

    label: str
    """Who takes it, and how it fared."""
    family: Family
    """How gradients are used: as they are, their mean, scaled by their size, both, or the sign of a mean."""
    member: int
    """Which of the family, from 0; it has the same colour and marker in every panel."""
    points: Sequence[Point]


@dataclass(frozen=True)
class Landmark:
    """A point to name."""

    name: str
    point: Point
    side: Literal["left", "right"]
    """Where the name stands."""


@dataclass(frozen=True)
class Panel:
    """A function, and the trails on it."""

    title: str
    subtitles: tuple[str, str]
    value: Callable[[float, float], float]
    frame: tuple[float, float, float, float]
    """Lowest and highest x, lowest and highest y to draw; what leaves it is cut."""
    line: float
    """The value to get below; the region is shown."""
    marks: Sequence[Landmark]
    every: int
    """Trails have a marker after every so many steps."""
    trails: Sequence[Trail]
    """In the order of the legend; the last is drawn above all others."""


@dataclass(frozen=True)
class PathPlot:
    """What there is to draw."""

    title: str
    panels: tuple[Panel, Panel]


def draw_paths(plot: PathPlot) -> bytes:
    """Draw the panels side by side as a PNG of 1600 × 1000 pixels; equal plots give equal bytes."""
    return render(_WIDTH, _HEIGHT, partial(_draw, plot))


def _draw(plot: PathPlot, figure: "Figure") -> None:
    title = write(figure, plot.title, "", limit=_WIDTH - 2 * _SIDE, bold=True, size=19)
    _place(title, _SIDE, 40)
    _draw_hues(figure)
    for number, panel in enumerate(plot.panels):
        left = _SIDE + number * (_INNER + _GAP)
        _place(write(figure, panel.title, "", limit=_INNER, bold=True, size=15), left, 122)
        for line, subtitle in enumerate(panel.subtitles):
            written = write(figure, subtitle, "", limit=_INNER, bold=False, size=12)
            _place(written, left, 150 + 23 * line, GREY)
        height = _HEIGHT - _BOTTOM - _TOP
        axes = figure.add_axes((left / _WIDTH, _BOTTOM / _HEIGHT, _INNER / _WIDTH, height / _HEIGHT))
        _draw_ground(axes, panel)
        _draw_trails(axes, panel.trails, panel.every)
        _draw_marks(axes, panel.marks)
        _draw_legend(axes, panel.trails)


def _place(text: "Text", x: float, down: float, color: str = INK) -> None:
    """Put a text so many pixels from the left and from above."""
    text.set(x=x / _WIDTH, y=1 - down / _HEIGHT, color=color)


def _draw_hues(figure: "Figure") -> None:
    """Say in a line what the hues stand for."""
    x: float = _SIDE
    for name, colors in _FAMILIES.values():
        for word, color in (*(("■", color) for color in colors), (f" {name}", INK)):
            text = write(figure, word, "", limit=_INNER, bold=False, size=12)
            _place(text, x, 78, color)
            x = text.get_window_extent().x1 + (4 if word == "■" else 26)


def _draw_ground(axes: "Axes", panel: Panel) -> None:
    """Draw contours, closer where the function is low, and the region to get to."""
    from matplotlib.colors import LinearSegmentedColormap

    west, east, south, north = panel.frame
    axes.set(xlim=(west, east), ylim=(south, north))
    axes.tick_params(length=0, pad=6, labelcolor=GREY, labelsize=11)
    axes.spines[:].set_visible(False)
    axes.locator_params(nbins=6)
    xs, ys = np.linspace(west, east, _GRID), np.linspace(south, north, _GRID)
    values = np.array([[panel.value(x, y) for x in xs.tolist()] for y in ys.tolist()])
    heights = np.cbrt((values - values.min()) / np.ptp(values))
    levels = np.linspace(0, 1, _LEVELS)
    shades = LinearSegmentedColormap.from_list("ground", [_LOW, _HIGH])
    axes.contourf(xs, ys, heights, levels, cmap=shades)
    axes.contourf(xs, ys, values, [values.min() - 1, panel.line], colors=[_GOAL])
    axes.contour(xs, ys, heights, levels, colors=_CONTOUR, linewidths=0.7)
    axes.contour(xs, ys, values, [panel.line], colors=[_GOAL_EDGE], linewidths=1.8, linestyles="solid")


def _draw_trails(axes: "Axes", trails: Sequence[Trail], every: int) -> None:
    """Draw lines, a marker after every so many steps, and a larger one at the end."""
    from matplotlib.patheffects import Normal, Stroke

    # A pale border keeps lines apart where they cross.
    border = [Stroke(linewidth=3.6, foreground="white", alpha=0.7), Normal()]
    for trail in trails:
        color, marker = _style(trail)
        xs, ys = np.array(trail.points).T
        axes.plot(xs, ys, color=color, lw=1.8, path_effects=border, solid_joinstyle="round", zorder=3)
        axes.plot(xs[::every], ys[::every], marker, color=color, ms=6, mec="white", mew=0.7, zorder=4)
        axes.plot(xs[-1], ys[-1], marker, color=color, ms=10, mec="white", mew=1.2, zorder=5)


def _draw_marks(axes: "Axes", marks: Sequence[Landmark]) -> None:
    from matplotlib.patheffects import Normal, Stroke

    for mark in marks:
        axes.plot(*mark.point, "o", ms=11, mfc="white", mec=INK, mew=2.2, zorder=6)
        away, align = (-13, "right") if mark.side == "left" else (13, "left")
        name = axes.annotate(mark.name, mark.point, (away, 0), textcoords="offset points", zorder=6)
        name.set(size=13, color=INK, weight="bold", ha=align, va="center")
        name.set_path_effects([Stroke(linewidth=3, foreground="white"), Normal()])


def _draw_legend(axes: "Axes", trails: Sequence[Trail]) -> None:
    """Draw the legend below the axes, where no path ever is."""
    from matplotlib.lines import Line2D

    handles = []
    for trail in trails:
        color, marker = _style(trail)
        handles.append(Line2D([], [], color=color, marker=marker, ms=8, mec="white", mew=0.8, lw=2))
    legend = axes.legend(
        handles,
        [trail.label for trail in trails],
        loc="upper left",
        bbox_to_anchor=(0, -0.055),
        ncols=3,
        frameon=False,
        fontsize=12,
        labelcolor=INK,
        handlelength=2.2,
        columnspacing=1.4,
        labelspacing=0.4,
        borderaxespad=0,
        borderpad=0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _style(trail: Trail) -> tuple[str, str]:
    """Return the colour and the marker of a trail."""
    return _FAMILIES[trail.family][1][trail.member], _MARKERS[trail.member]
