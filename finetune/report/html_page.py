"""The report of a run, or of an evaluation, as one HTML page that needs no other file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from finetune.analysis.calibration import Bin, Coverage
from finetune.display import duration
from finetune.metrics.multi_label import MultiLabelScores
from finetune.metrics.score import Scores
from finetune.metrics.single_label import SingleLabelScores
from finetune.report.page_charts import certainty_charts, history_charts, step_charts
from finetune.report.page_rows import class_rows, confusions, epoch_rows, hits, rows_left_out
from finetune.report.pictures import Album, Pictures
from finetune.report.scores import accuracy_interval
from finetune.report.templates import inline_hash, load_template
from finetune.runs.history import EpochRow
from finetune.text import printable, shortened

MOST_BYTES = 5_000_000
"""of a page, which people send on"""

# For pictures, in bytes: the rest of a page is small, unless thousands of names are long.
_ROOMS = (3_500_000, 2_000_000, 500_000, 0)
_LONGEST_NAME, _LONGEST_CONFIG = 200, 100_000  # characters

Steps = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""what was recorded of each step, by stage and number in it"""


@dataclass(frozen=True)
class TrainingPart:
    """What a page says of the training."""

    report: Mapping[str, Any]
    """the content of report.json"""
    history: Sequence[EpochRow]
    """one row per epoch"""
    config: str
    """text of the resolved config"""
    steps: Steps = field(default_factory=dict)
    lr_finds: Sequence[tuple[Mapping[str, Any], bytes]] = ()
    """how rates were found, and the plot of each as PNG"""
    environment: Mapping[str, str] = field(default_factory=dict)
    """versions and the device"""


@dataclass(frozen=True)
class ReportPage:
    """What a page shows."""

    name: str
    scores: Mapping[str, Scores]
    """by what the images are called; the first are those that all the rest is about"""
    about: Mapping[str, str]
    """what was trained on what and when, by its heading"""
    pictures: Pictures = Pictures()  # noqa: RUF009  (frozen)
    interval: tuple[float, float] | None = None
    """95% interval of mAP on the first images; that of an accuracy is known without the images"""
    bins: Sequence[Bin] = ()
    """how often answers are right, by their probability"""
    coverage: Sequence[Coverage] = ()
    error: float | None = None
    """of the calibrated probabilities, where the page is not about a training"""
    findings: Sequence[tuple[str, str]] = ()
    """level and text of what was found in the data"""
    left_out: Sequence[str] = ()
    """what the page cannot show, and why"""
    training: TrainingPart | None = None


class _Layout(NamedTuple):
    """What the page shows of a task."""

    template: str
    score_name: str


_LAYOUTS: Mapping[type[Scores], _Layout] = {
    SingleLabelScores: _Layout("page_single_label.html", "accuracy"),
    MultiLabelScores: _Layout("page_multi_label.html", "mAP"),
}


def report_page(page: ReportPage) -> str:
    """Render a page of at most 5 MB; every name in it is escaped.

    It has fewer pictures where it would be larger.
    """
    context = _context(page)
    for room in _ROOMS:
        album = Album(room)
        text: str = load_template(context["layout"].template).render(**context, album=album)
        text = text.encode("utf-8", "replace").decode()  # names of files may hold bytes that are no text
        if len(text.encode()) <= MOST_BYTES:
            break
    return text


def _context(page: ReportPage) -> dict[str, Any]:
    main = next(iter(page.scores.values()))
    layout, training = _LAYOUTS[type(main)], page.training
    wrong, right = confusions(main), hits(main)
    of_training: dict[str, Any] = {"report": {}, "history": [], "best": None, "charts": {}, "steps": []}
    if training is not None:
        best = _row_of(training.report["best"], training.history)
        of_training = {
            "report": training.report,
            "history": training.history,
            "epochs": epoch_rows(training.history, best),
            "best": best,
            "duration": duration(sum(row.seconds for row in training.history)),
            "charts": history_charts(training.history, best, layout.score_name),
            "steps": step_charts(training.steps, [row.stage for row in training.history]),
            "config": shortened(training.config, _LONGEST_CONFIG),
        }
    return of_training | {
        "page": page,
        "name": _shown(Path(page.name).name),
        "layout": layout,
        "main": main,
        "intervals": _intervals(page),
        "class_rows": class_rows(main),
        "rows_left_out": rows_left_out(main),
        "confusions": wrong,
        "hits": right,
        "linked": {cell[:2] for cell in [*wrong, *right]} & {*page.pictures.cells},
        "certainty": certainty_charts(page.bins, page.coverage),
        "shown": _shown,
        "script_hash": inline_hash("page_script.html"),
    }


def _intervals(page: ReportPage) -> dict[str, tuple[float, float]]:
    """Return the 95% interval of the score that stands first, for the images of which it is known."""
    found = {
        heading: accuracy_interval(scores)
        for heading, scores in page.scores.items()
        if isinstance(scores, SingleLabelScores)
    }
    return found or ({next(iter(page.scores)): page.interval} if page.interval else {})


def _shown(name: str) -> str:
    """Return a name that cannot hide, turn round or flood what stands beside it."""
    return shortened(printable(name), _LONGEST_NAME)


def _row_of(best: Any, history: Sequence[EpochRow]) -> EpochRow:
    return next(row for row in history if (row.stage, row.epoch) == (best["stage"], best["epoch"]))
