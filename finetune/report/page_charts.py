"""The charts of a report page: epochs, steps, and how far probabilities can be believed."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from finetune.analysis.calibration import Bin, Coverage
from finetune.report.plot import HistoryPlot, draw_history
from finetune.report.plot.small_chart import Chart, Line, draw_chart, thinned
from finetune.runs.history import EpochRow


def history_charts(history: Sequence[EpochRow], best: EpochRow, score_name: str) -> dict[str, str]:
    """Draw the epochs for two widths: letters of one that is scaled down to a phone are 5 pixels high."""
    plot = HistoryPlot(
        train_losses=[row.train_loss for row in history],
        val_losses=[row.val_loss for row in history],
        score_name=score_name,
        scores=[row.val_map if score_name == "mAP" else row.val_accuracy for row in history],
        stages=[row.stage for row in history],
        best=history.index(best),
    )
    return {"wide": draw_history(plot), "narrow": draw_history(plot, narrow=True)}


def step_charts(steps: Mapping[str, Mapping[int, Mapping[str, Any]]], stages: Sequence[str]) -> list[Markup]:
    """Draw the training loss and the rates by step, with the start of each stage marked."""
    rows: list[Mapping[str, Any]] = []
    starts: list[tuple[float, str]] = []
    for stage in dict.fromkeys(stages):
        own = steps.get(stage, {})
        if own:
            starts.append((len(rows) + 1.0, stage))
        rows += [own[number] for number in sorted(own)]
    if len(rows) < 2:
        return []
    loss = Line("training loss", *_columns([float(row["loss"]) for row in rows]), style="miss")
    # Groups stand in depth order: the head is the last of them.
    heads, firsts = [row["lrs"][-1] for row in rows], [row["lrs"][0] for row in rows]
    rates = [Line("rate of the head", *_columns(heads))]
    if heads != firsts:
        rates.append(Line("of the first layers", *_columns(firsts), style="soft"))
    return [
        draw_chart(Chart("Training loss by step", "step", [loss], starts)),
        draw_chart(Chart("Learning rates by step", "step", rates, starts, logarithmic=True)),
    ]


def certainty_charts(bins: Sequence[Bin], coverage: Sequence[Coverage]) -> list[Markup]:
    """Draw how often answers of some probability are right, and how often the surest of them are."""
    charts = []
    if bins:
        said, right = [one.confidence for one in bins], [one.right for one in bins]
        lines = [
            Line("as often as said", [0, 1], [0, 1], style="soft"),
            Line("right", said, right, dots=True),
        ]
        title = "Share of right answers by probability"
        charts.append(Chart(title, "probability of the answer", lines, percent=True, y_range=(0, 1)))
    if coverage:
        low = max(0.0, min(one.right for one in coverage) - 0.05)
        line = Line("right", [one.coverage for one in coverage], [one.right for one in coverage])
        title = "Share of right answers among the surest"
        charts.append(Chart(title, "images answered", [line], percent=True, y_range=(low, 1)))
    return [draw_chart(chart) for chart in charts]


def _columns(values: Sequence[float]) -> tuple[list[float], list[float]]:
    points = thinned(values)
    return [x for x, _ in points], [y for _, y in points]
