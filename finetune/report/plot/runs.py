"""The validation loss and score of several trainings by epoch, as SVG to stand in a page."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from finetune.report.plot.figure import render_svg
from finetune.report.plot.history import set_up_epochs
from finetune.text import printable, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for variables of the page's style, which differ by day and by night.
_SOFT, _LINE = "#020202", "#030303"
_VARIABLES = {_SOFT: "var(--soft)", _LINE: "var(--line)"}

# Of runs: of middling lightness, so that they can be told from white and from black.
_COLORS = ("#2a78d6", "#d9662b", "#2f9e6e", "#b04fb8", "#b8912a", "#708090")
_STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)))

_WIDE, _NARROW = (960, 380), (360, 640)  # pixels; the panels stand beside or below each other
_MOST_POINTS = 40  # epochs that are marked with a dot each


class RunCurve(NamedTuple):
    """The epochs of a run."""

    name: str
    losses: Sequence[float]
    scores: Sequence[float]
    """0–1"""


def draw_runs(curves: Sequence[RunCurve], score_name: str, *, narrow: bool = False) -> str:
    """Draw loss and score of runs as an `<svg>` element; `narrow` is for the width of a phone."""
    width, height = _NARROW if narrow else _WIDE
    salt = "narrow runs" if narrow else "wide runs"
    svg = render_svg(width, height, partial(_draw, curves, score_name, narrow=narrow), salt=salt)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg


def _draw(curves: Sequence[RunCurve], score_name: str, figure: "Figure", *, narrow: bool) -> None:
    losses, scores = figure.subplots(*((2, 1) if narrow else (1, 2)))
    for axes, name in ((losses, "validation loss"), (scores, score_name)):
        _prepare(axes, name, max(len(curve.losses) for curve in curves))
    for number, curve in enumerate(curves):
        epochs = range(1, len(curve.losses) + 1)
        marker = "o" if len(epochs) <= _MOST_POINTS else ""
        style = {
            **{"lw": 2, "marker": marker, "ms": 4, "color": _COLORS[number % len(_COLORS)]},
            "ls": _STYLES[number // len(_COLORS) % len(_STYLES)],
        }
        finite = [loss if math.isfinite(loss) else math.nan for loss in curve.losses]
        losses.plot(epochs, finite, **style)
        scores.plot(epochs, curve.scores, label=printable(shortened(curve.name, 24)), **style)
    losses.set_ylim(bottom=0)
    handles, names = scores.get_legend_handles_labels()
    columns = 1 if narrow else 4
    rows = -(-len(names) // columns)
    for text in figure.legend(
        handles, names, loc="upper left", ncols=columns, frameon=False, labelcolor=_SOFT, fontsize=9
    ).get_texts():
        text.set_parse_math(False)
    height = (_NARROW if narrow else _WIDE)[1]
    figure.subplots_adjust(
        left=0.21 if narrow else 0.07,
        right=0.98,
        top=1 - (18 + 17 * rows) / height,
        bottom=46 / height,
        wspace=0.22,
        hspace=0.28,
    )


def _prepare(axes: "Axes", name: str, epochs: int) -> None:
    """Set up the axes of a score or loss."""
    from matplotlib.ticker import PercentFormatter

    set_up_epochs(axes, epochs)
    axes.set_ylabel(name, color=_SOFT, size=10)
    if name == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
