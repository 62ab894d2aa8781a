"""A sweep as one HTML page."""

import os
from pathlib import Path

from finetune.commands.sweep.result import SweepResult, TrialResult, shown_value
from finetune.config.search_space import Dimension
from finetune.config.yaml_writer import write_value
from finetune.display import duration
from finetune.report.plot.sweep import Axis, Point, SweepPlot
from finetune.report.sweep_page import SweepPageContent, TrialRow, render_sweep_page
from finetune.runs.names import REPORT_PAGE


def sweep_page(result: SweepResult, page: Path) -> str:
    """Render what a sweep has found so far; `page` is where it will lie, for its links."""
    content = SweepPageContent(
        name=result.directory.absolute().name,
        summary=result.summary,
        value_name=result.monitor.removeprefix("val_").replace("_", " "),
        keys=[dimension.key for dimension in result.space],
        rows=[_row(trial, result, page) for trial in _ranked(result)],
        best=None if result.best is None else result.best.number,
        importance=result.importance,
        plot=SweepPlot(
            points=[
                Point(trial.number, trial.value, trial.status == "done", trial.samples)
                for trial in result.trials
                if trial.value is not None
            ],
            axes=[_axis(dimension) for dimension in result.space],
            percent=result.is_share,
            maximises=result.maximises,
        ),
    )
    return render_sweep_page(content)


def _axis(dimension: Dimension) -> Axis:
    return Axis(dimension.key, dimension.kind == "log", dimension.labels)


def _ranked(result: SweepResult) -> list[TrialResult]:
    """Return the trials, those that are done and the best of them first."""
    order = ("done", "running", "pruned", "failed")
    return sorted(result.trials, key=lambda trial: (order.index(trial.status), result.rank(trial)))


def _row(trial: TrialResult, result: SweepResult, page: Path) -> TrialRow:
    report = Path(trial.run_dir) / REPORT_PAGE
    return TrialRow(
        number=trial.number,
        status=trial.status,
        value=shown_value(trial, result),
        took="" if trial.seconds is None else duration(trial.seconds),
        params=[
            write_value(trial.params[dimension.key]) if dimension.key in trial.params else ""
            for dimension in result.space
        ],
        report=os.path.relpath(report, page.parent) if report.is_file() else "",
        reason=trial.reason,
    )
