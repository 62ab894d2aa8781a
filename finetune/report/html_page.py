"""The report of a run as one HTML page."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from finetune.display import duration
from finetune.metrics.multi_label import MultiLabelScores
from finetune.metrics.score import Scores
from finetune.metrics.single_label import SingleLabelScores
from finetune.report.plot import HistoryPlot, draw_history
from finetune.report.scores import most_confused
from finetune.report.templates import load_template
from finetune.report.thumbnails import encoded
from finetune.runs.recorder import EpochRow
from finetune.text import printable


class AnsweredImage(NamedTuple):
    """An image with what a model says of it."""

    name: str
    label: str
    """its class; of several the names in one text"""
    answer: str
    """what the model says, likewise"""
    certainty: float
    """the calibrated probability of that answer, 0–1"""
    thumbnail: Image.Image


class _Layout(NamedTuple):
    """What the page shows of a task."""

    template: str
    score_name: str
    score: Callable[[EpochRow], float]
    """what is drawn beside the losses"""


_LAYOUTS: Mapping[type[Scores], _Layout] = {
    SingleLabelScores: _Layout("page_single_label.html", "accuracy", lambda row: row.val_accuracy),
    MultiLabelScores: _Layout("page_multi_label.html", "mAP", lambda row: row.val_map),
}


def report_page(
    report: Mapping[str, Any],
    *,
    scores: Mapping[str, Scores],
    history: Sequence[EpochRow],
    about: Mapping[str, str],
    config: str,
    lr_finds: Sequence[tuple[Mapping[str, Any], bytes]] = (),
    answers: Mapping[str, Sequence[AnsweredImage]] | None = None,
) -> str:
    """Render the report as one HTML page that needs no other file; every name in it is escaped.

    Args:
        report: the content of report.json.
        scores: of the best model, by split; "val" is always there.
        history: one row per epoch.
        about: what was trained on what and when, by its heading.
        config: text of the resolved config.
        lr_finds: how rates were found, and the plot of each as PNG.
        answers: `mistakes` and `close`, the answers that say most about the model.
    """
    layout, best = _LAYOUTS[type(scores["val"])], _row_of(report["best"], history)
    page: str = load_template(layout.template).render(
        name=printable(Path(str(report["run_dir"])).name),
        report=report,
        scores_by_split=scores,
        val=scores["val"],
        history=history,
        best=best,
        about={heading: printable(text) for heading, text in about.items()},
        duration=duration(sum(row.seconds for row in history)),
        charts=_charts(history, best, layout),
        most_confused=most_confused,
        config=config,
        answers=answers or {},
        shown=printable,
        thumbnail=encoded,
        lr_finds=[(found, b64encode(picture).decode()) for found, picture in lr_finds],
    )
    return page.encode("utf-8", "replace").decode()  # names of files may hold bytes that are no text


def _row_of(best: Any, history: Sequence[EpochRow]) -> EpochRow:
    return next(row for row in history if (row.stage, row.epoch) == (best["stage"], best["epoch"]))


def _charts(history: Sequence[EpochRow], best: EpochRow, layout: _Layout) -> dict[str, str]:
    """Draw the curves for two widths: letters of one that is scaled down to a phone are 5 pixels high."""
    plot = HistoryPlot(
        train_losses=[row.train_loss for row in history],
        val_losses=[row.val_loss for row in history],
        score_name=layout.score_name,
        scores=[layout.score(row) for row in history],
        stages=[row.stage for row in history],
        best=history.index(best),
    )
    return {"wide": draw_history(plot), "narrow": draw_history(plot, narrow=True)}
