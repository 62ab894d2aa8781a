"""A learning curve for people: a chart in characters, and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.analysis.learning_curve import Estimate
from finetune.machine.files import write_bytes
from finetune.report.plot.figure import GREY, INK, PALE, render, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 1000, 600
_CURVE, _MORE = "#1f5fae", "#d9600a"
_LEAST_BAR = 12  # characters


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve."""

    images: int
    name: str
    """what stands beside the number, such as 2×; empty for what was measured"""
    estimate: Estimate

    @property
    def measured(self) -> bool:
        """Whether there are so many images."""
        return not self.name


def draw_chart(points: Sequence[CurvePoint], *, width: int, ascii_only: bool) -> str:
    """Draw a line for each point: images, accuracy, and the interval on a scale."""
    dash, dot, more, left, right = "-*o||" if ascii_only else "─●○├┤"
    low, high = _scale(points)
    numbers = [f"{point.images:,}" for point in points]
    heads = [
        f"{point.name:>2}  {number:>{max(map(len, numbers))}}  {point.estimate.accuracy:>6.1%}  "
        for point, number in zip(points, numbers, strict=True)
    ]
    room = max(_LEAST_BAR, width - len(heads[0]) - 1)
    lines = []
    for head, point in zip(heads, points, strict=True):
        start, middle, end = (
            round((value - low) / (high - low) * (room - 1))
            for value in (point.estimate.low, point.estimate.accuracy, point.estimate.high)
        )
        cells = [" "] * room
        cells[start : end + 1] = dash * (end + 1 - start)
        cells[start], cells[end] = left, right
        cells[middle] = dot if point.measured else more
        lines.append((head + "".join(cells)).rstrip())
    edge = len(heads[0])
    lines.append(f"{'':{edge}}{f'{low:.0%}':<{room - 4}}{f'{high:.0%}':>4}")
    return "\n".join(lines)


def _scale(points: Sequence[CurvePoint]) -> tuple[float, float]:
    """Return the least and the greatest accuracy of the axis, in tenths."""
    low = int(10 * min(point.estimate.low for point in points)) / 10
    high = -int(-10 * max(point.estimate.high for point in points) - 0.999) / 10
    return low, max(min(high, 1.0), low + 0.1)


def write_plot(title: str, points: Sequence[CurvePoint], path: Path) -> None:
    """Draw the curve into a PNG file.

    Raises:
        ResourceError: the file cannot be written.
    """
    write_bytes(path, render(_WIDTH, _HEIGHT, partial(_draw, title, points)))


def _draw(title: str, points: Sequence[CurvePoint], figure: "Figure") -> None:
    written = write(figure, title, "", limit=_WIDTH - 100, bold=True, size=13)
    written.set(x=76 / _WIDTH, y=1 - 30 / _HEIGHT, color=INK)
    axes = figure.add_axes((0.076, 0.14, 0.9, 0.75))
    axes.set_xscale("log")
    axes.grid(color=PALE, lw=0.8)
    axes.tick_params(length=0, pad=7, labelcolor=GREY, labelsize=10)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.set_xlabel("training images", color=INK, labelpad=9, size=11)
    axes.set_ylabel("accuracy on the validation images, %", color=INK, labelpad=9, size=11)
    measured = [point for point in points if point.measured]
    more = [point for point in points if not point.measured]
    band = [measured[-1], *more] if more else []
    axes.fill_between(
        [point.images for point in band],
        [100 * point.estimate.low for point in band],
        [100 * point.estimate.high for point in band],
        color=_MORE, alpha=0.15, lw=0,
    )  # fmt: skip
    axes.plot([p.images for p in band], [100 * p.estimate.accuracy for p in band], "--", color=_MORE, lw=2)
    axes.plot(
        [p.images for p in measured], [100 * p.estimate.accuracy for p in measured], color=_CURVE, lw=2.4
    )
    for group, color, label in ((measured, _CURVE, "measured"), (more, _MORE, "expected of more images")):
        if group:
            centres = [100 * point.estimate.accuracy for point in group]
            below = [100 * (point.estimate.accuracy - point.estimate.low) for point in group]
            above = [100 * (point.estimate.high - point.estimate.accuracy) for point in group]
            axes.errorbar(
                [point.images for point in group], centres, yerr=[below, above], fmt="o", color=color, ms=7,
                mec="white", capsize=4, label=f"{label}, 80% interval",
            )  # fmt: skip
    axes.set_xticks([point.images for point in points], [f"{point.images:,}" for point in points])
    axes.minorticks_off()
    axes.legend(loc="lower right", frameon=False, labelcolor=GREY)
