"""The losses and the score of a training by epoch, as SVG to stand in a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from finetune.report.plot.figure import render_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for variables of the page's style, which differ by day and by night.
_INK, _SOFT, _LINE, _TRAIN, _VAL = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _TRAIN: "rgb(var(--miss))",
    _VAL: "rgb(var(--hit))",
}

_WIDE, _NARROW = (960, 340), (360, 600)  # pixels; the panels stand beside or below each other
_DIGIT = 9  # pixels that the widest digit of a number takes
_MOST_POINTS = 40  # epochs that are marked with a dot each


@dataclass(frozen=True)
class HistoryPlot:
    """What there is to draw; every sequence has one entry for each epoch of all stages."""

    train_losses: Sequence[float]
    val_losses: Sequence[float]
    score_name: str
    """What is drawn beside the losses: accuracy, mAP."""
    scores: Sequence[float]
    """On the validation images, 0–1."""
    stages: Sequence[str]
    """Name of the stage of each epoch."""
    best: int
    """Which epoch has the best model, from 0."""


def draw_history(plot: HistoryPlot, *, narrow: bool = False) -> str:
    """Draw losses and score as an `<svg>` element; `narrow` is for the width of a phone."""
    width, height = _NARROW if narrow else _WIDE
    svg = render_svg(width, height, partial(_draw, plot, narrow=narrow), salt="narrow" if narrow else "wide")
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg


def _draw(plot: HistoryPlot, figure: "Figure", *, narrow: bool) -> None:
    losses, scores = figure.subplots(*((2, 1) if narrow else (1, 2)))
    for axes in (losses, scores):
        _prepare(axes, plot)
    epochs = range(1, len(plot.stages) + 1)
    marker = "o" if len(epochs) <= _MOST_POINTS else ""
    style = {"lw": 2, "marker": marker, "ms": 4}
    losses.plot(epochs, _finite(plot.train_losses), color=_TRAIN, label="training", **style)
    losses.plot(epochs, _finite(plot.val_losses), color=_VAL, label="validation", **style)
    _limit(losses, [*plot.train_losses, *plot.val_losses])
    scores.plot(epochs, plot.scores, color=_VAL, label="validation", **style)
    scores.set_ylim(0, 1.0 if max(plot.scores) > 0.5 else 1.1 * max(plot.scores) or 1.0)
    if plot.score_name == "accuracy":
        from matplotlib.ticker import PercentFormatter

        scores.yaxis.set_major_formatter(PercentFormatter(1.0))
    best_score, best_loss = plot.scores[plot.best], plot.val_losses[plot.best]
    for axes, value, name in ((losses, best_loss, "loss"), (scores, best_score, plot.score_name)):
        axes.set_ylabel(name, color=_SOFT, size=10)
        ring = {"ms": 11, "mfc": "none", "mec": _INK, "mew": 1.6, "ls": "none", "clip_on": False}
        axes.plot(plot.best + 1, value, "o", label="best epoch", **ring)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.05, 1),
            ncols=3,
            frameon=False,
            labelcolor=_SOFT,
            fontsize=9,
            columnspacing=0.8,
            handlelength=1.2,
            handletextpad=0.4,
            borderaxespad=0.2,
        )
    figure.subplots_adjust(**_margins((losses, scores), narrow=narrow))


def _margins(panels: Sequence["Axes"], *, narrow: bool) -> dict[str, float]:
    """Return where the panels stand in the picture, as fractions of it.

    Room is left of each panel for a name and its longest number, above for a legend, below for numbers and
    a name. `tight_layout` measures every text for it, which takes nearly as long as to draw them all.
    """
    width, height = _NARROW if narrow else _WIDE
    numbers = [
        text
        for axes in panels
        for text in axes.yaxis.get_major_formatter().format_ticks(axes.yaxis.get_majorticklocs().tolist())
    ]
    left, right, top, bottom = 36 + _DIGIT * max(map(len, numbers)), 10, 30, 44  # pixels
    across = (width - left - right) if narrow else (width - 2 * (left + right)) / 2
    down = (height - 2 * (top + bottom)) / 2 if narrow else (height - top - bottom)
    return {
        "left": left / width,
        "right": 1 - right / width,
        "top": 1 - top / height,
        "bottom": bottom / height,
        "wspace": (left + right) / across,
        "hspace": (top + bottom) / down,
    }


def set_up_epochs(axes: "Axes", epochs: int) -> None:
    """Set up ticks at whole epochs, and a pale grid."""
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor("none")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.tick_params(length=3, color=_LINE, labelcolor=_SOFT, labelsize=10)
    axes.grid(axis="y", color=_LINE, lw=0.8)
    axes.spines[["right", "top"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.set_xlabel("epoch", color=_SOFT, size=10)
    axes.set_xlim(0.6, epochs + 0.4)


def _prepare(axes: "Axes", plot: HistoryPlot) -> None:
    """Set up the axes, and a dashed line where a stage starts."""
    set_up_epochs(axes, len(plot.stages))
    for number, (stage, after) in enumerate(pairwise(plot.stages), start=1):
        if stage != after:
            axes.axvline(number + 0.5, color=_SOFT, lw=1, ls=(0, (4, 4)))


def _limit(axes: "Axes", losses: Sequence[float]) -> None:
    """Begin the axis at 0, and let an exploded loss leave the frame rather than squash all others."""
    finite = sorted(loss for loss in losses if math.isfinite(loss))
    middle, top = finite[len(finite) // 2], finite[-1]
    axes.set_ylim(0, 1.05 * min(top, 5 * middle) or 1.0)


def _finite(losses: Sequence[float]) -> list[float]:
    return [loss if math.isfinite(loss) else math.nan for loss in losses]
