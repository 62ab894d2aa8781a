"""The report of a run as one HTML page."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from finetune.display import duration
from finetune.metrics.multi_label import MultiLabelScores
from finetune.metrics.score import Scores
from finetune.metrics.single_label import SingleLabelScores
from finetune.report.plot import HistoryPlot, draw_history
from finetune.report.scores import most_confused
from finetune.runs.recorder import EpochRow
from finetune.text import printable

_MOST_CONFUSIONS = 10


def report_page(
    report: Mapping[str, object],
    *,
    scores: Mapping[str, Scores],
    history: Sequence[EpochRow],
    best: EpochRow,
    about: Mapping[str, str],
    config: str,
    lr_finds: Sequence[tuple[Mapping[str, Any], bytes]] = (),
) -> str:
    """Render the report as one HTML page that needs no other file; every name in it is escaped.

    Args:
        report: the content of report.json.
        scores: of the best model, by split; "val" is always there.
        history: one row per epoch.
        best: the row of the best model.
        about: what was trained on what and when, by its heading.
        config: text of the resolved config.
        lr_finds: how rates were found, and the plot of each as PNG.
    """
    source = resources.files("finetune.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    val = scores["val"]
    page: str = environment.from_string(source).render(
        name=printable(Path(str(report["run_dir"])).name),
        report=report,
        scores=scores,
        history=history,
        best=best,
        about={heading: printable(text) for heading, text in about.items()},
        duration=duration(sum(row.seconds for row in history)),
        charts=_charts(history, best, val),
        several_labels=isinstance(val, MultiLabelScores),
        never_predicted=val.never_predicted if isinstance(val, SingleLabelScores) else (),
        confused=most_confused(val, _MOST_CONFUSIONS) if isinstance(val, SingleLabelScores) else [],
        config=config,
        lr_finds=[(found, b64encode(picture).decode()) for found, picture in lr_finds],
    )
    return page


def _charts(history: Sequence[EpochRow], best: EpochRow, scores: Scores) -> dict[str, str]:
    """Draw the curves for two widths: letters of one that is scaled down to a phone are 5 pixels high."""
    several = isinstance(scores, MultiLabelScores)
    plot = HistoryPlot(
        train_losses=[row.train_loss for row in history],
        val_losses=[row.val_loss for row in history],
        score_name="mAP" if several else "accuracy",
        scores=[row.val_map if several else row.val_accuracy for row in history],
        stages=[row.stage for row in history],
        best=history.index(best),
    )
    return {"wide": draw_history(plot), "narrow": draw_history(plot, narrow=True)}
