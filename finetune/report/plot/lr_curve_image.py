"""The loss curve of a range test as a PNG."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from finetune.report.plot.figure import GREY, INK, PALE, render, write
from finetune.report.plot.lr_curve import (
    X_LABEL,
    Y_LABEL,
    CurvePlot,
    Marker,
    RacePoint,
    above,
    loss_range,
    position,
    rate_span,
    ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pixels of the picture: its size, what stays free around the axes, the height of a row of labels above them.
_WIDTH, _HEIGHT = 1000, 600
_LEFT, _RIGHT, _BOTTOM, _TOP, _ROW = 76, 24, 84, 58, 22
_INNER = _WIDTH - _LEFT - _RIGHT

_CURVE, _RAW, _PICKED, _RED = "#1f5fae", "#7fa9d8", "#d9600a", "#b3202c"


def draw_png(plot: CurvePlot) -> bytes:
    """Draw the curve as a PNG of 1000 × 600 pixels; equal plots give equal bytes."""
    return render(_WIDTH, _HEIGHT, partial(_draw, plot))


def _draw(plot: CurvePlot, figure: "Figure") -> None:
    title = write(figure, plot.title, "", limit=_INNER, bold=True, size=13)
    title.set(x=_LEFT / _WIDTH, y=1 - 30 / _HEIGHT, color=INK)
    low, high = rate_span(plot)
    span = low * (low / high) ** 0.02, high * (high / low) ** 0.02
    labels = [write(figure, m.label, f"  {m.lr:.3g}", limit=_INNER / 3, bold=m.picked) for m in plot.markers]
    xs = [_INNER * position(marker.lr, span) for marker in plot.markers]
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
    named = ticks(rate_span(plot))
    axes.set_xticks(list(named), list(named.values()))
    axes.minorticks_off()
    axes.grid(color=PALE, lw=0.8)
    axes.tick_params(length=0, pad=7, labelcolor=GREY, labelsize=10)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.set_xlabel(X_LABEL, color=INK, labelpad=9, size=11)
    axes.set_ylabel(Y_LABEL, color=INK, labelpad=9, size=11)
    raced = [point.val_loss for point in plot.race]
    low, high = loss_range([*plot.losses, *plot.smoothed, *raced], plot.smoothed)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.plot(plot.lrs, plot.losses, color=_RAW, lw=0.7, marker="o", ms=2.6, alpha=0.65, label="each batch")
    axes.plot(plot.lrs, plot.smoothed, color=_CURVE, lw=2.6, solid_capstyle="round", label="smoothed")
    _draw_race(axes, plot.race, high)
    # The legend stands below the axes, where no curve ever is.
    x, right, y = _LEFT / _WIDTH, 1 - _RIGHT / _WIDTH, 17 / _HEIGHT
    axes.figure.legend(
        loc="center left", bbox_to_anchor=(x, y), ncols=3, frameon=False, borderaxespad=-0.4, labelcolor=GREY
    )
    axes.figure.text(right, y, above(plot, high), color=GREY, size=10, ha="right", va="center")


def _draw_race(axes: "Axes", race: Sequence[RacePoint], high: float) -> None:
    """Draw what each rate of the race came to; one that lost by far stands at the upper edge."""
    if race:
        axes.errorbar(
            [point.lr for point in race],
            [min(point.val_loss, high) for point in race],
            yerr=[point.error for point in race],
            fmt="D",
            color=_PICKED,
            ms=7,
            mec="white",
            capsize=3,
            label="validation loss after the race",
            zorder=6,
        )


def _draw_marker(axes: "Axes", plot: CurvePlot, marker: Marker, top: float) -> str:
    """Draw a line up to `top` times the height of the axes, a dot on the curve; return their colour."""
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
