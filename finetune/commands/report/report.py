"""The story of `finetune report`: make the page of a finished run anew."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from finetune.choices import DeviceName, Split
from finetune.commands.check.check import compare_looks, look_at_all
from finetune.commands.evaluate.evaluate import own_index, split_logits
from finetune.commands.report.judged import MOST_JUDGED, Judged
from finetune.commands.report.page import SPLITS, Seen, about_training, data_findings, page_of_run, see
from finetune.commands.train.telling import telling_answers
from finetune.config.load import parse_config
from finetune.data.index import ImageIndex
from finetune.display import Display
from finetune.errors import CheckpointError, DataError
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.machine.files import write_file
from finetune.metrics.score import Scores, scores_from_dict
from finetune.model.origin import Origin
from finetune.report.html_page import Steps, TrainingPart
from finetune.runs import CONFIG, REPORT, Run, open_run
from finetune.runs.history import read_history
from finetune.runs.names import REPORT_PAGE
from finetune.runs.records import ADVICE, read_report, read_started, read_status
from finetune.runs.trained_model import TrainedModel, load_trained
from finetune.text import counted

_NAMED = 4  # images of a finding


@dataclass(frozen=True)
class WrittenPage:
    """A page that was written."""

    path: Path
    bytes: int
    left_out: tuple[str, ...]
    """what it cannot show, and why"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as `report --json` documents it."""
        return {"page": str(self.path), "bytes": self.bytes, "left_out": list(self.left_out)}


def write_report_page(
    run_dir: Path, *, output: Path | None, check: bool, device: DeviceName, display: Display
) -> WrittenPage:
    """Make the page of a run anew, from its files and, where they still are, from its images.

    Args:
        run_dir: directory of the run.
        output: the file; None for that of the run.
        check: whether every image is looked at, and the page says what `finetune check` would find.
        device: where to compute.
        display: where to show the progress.

    Raises:
        RunError: not a finished run.
        CheckpointError: its files are damaged, or were changed.
        ResourceError: the page cannot be written.
    """
    keep_large_buffers()
    run = open_run(run_dir)
    trained = load_trained(run_dir, choose_device(device))
    report = read_report(run)
    with _reported_damage(run):
        scores = {str(split): scores_from_dict(report[split]) for split in SPLITS if split in report}
        index, seen, left_out = _look(trained, scores["val"], display)
        findings = data_findings(index, run.read_files(), report["bad_images"])
        if check and not left_out and index.root is not None:
            findings = [*findings, *_checked(index, trained, display)]
        page = page_of_run(
            os.path.basename(run_dir.absolute()),
            _training_part(run, report),
            seen,
            scores=scores,
            about=_about(run, index, trained),
            findings=findings,
            left_out=left_out,
        )
    path = output or run / REPORT_PAGE
    write_file(path, page)
    return WrittenPage(path, len(page.encode()), left_out)


def _look(
    trained: TrainedModel, scores: Scores, display: Display
) -> tuple[ImageIndex, Seen, tuple[str, ...]]:
    """Look at the validation images, if they are where they were; else say what is left out, and why."""
    try:
        index = own_index(trained)
        thin = index.thinned("val", MOST_JUDGED)
        logits, targets = split_logits(trained, thin, "val", display.bar)
    except DataError as error:
        why = str(error).partition("\n")[0]
        return (
            own_index(trained, images=False),
            Seen(),
            (f"pictures, heat maps, doubtful labels and some charts. {why}",),
        )
    telling = telling_answers(trained, thin, logits, targets)
    return index, see(Judged(trained, thin, "val", logits, targets), telling, scores, display.bar), ()


def _checked(index: ImageIndex, trained: TrainedModel, display: Display) -> list[tuple[str, str]]:
    """Look at every image of a run; return level and text of what `finetune check` finds."""
    looks, reasons = look_at_all(index, trained.limits, display.bar)
    found = [("error", f"{sample.name} cannot be read (any more): {why}") for sample, why in reasons.items()]
    kept = replace(index, samples=tuple(s for s in index.samples if s not in reasons))
    for finding in compare_looks(kept, looks, trained.limits):
        names = [name for item in finding.items for name in item.images]
        first = f": {', '.join(names[:_NAMED])}" if names else ""
        more = f" and {counted(len(names) - _NAMED, 'more image')}" if len(names) > _NAMED else ""
        found.append((finding.level, f"{finding.message}{first}{more}"))
    return found


def _training_part(run: Run, report: Mapping[str, Any]) -> TrainingPart:
    history = read_history(run)
    environment = read_started(run).get("environment", {})
    return TrainingPart(
        report,
        history,
        config=run.read_config(),
        steps=_steps(run),
        lr_finds=list(run.read_lr_finds(dict.fromkeys(row.stage for row in history)).values()),
        environment=environment if isinstance(environment, dict) else {},
    )


def _steps(run: Run) -> Steps:
    """Read what was recorded of each step; one that was repeated after a resume counts once."""
    steps: dict[str, dict[int, Mapping[str, Any]]] = {}
    for event in run.read_events():
        if event.get("event") == "step":
            steps.setdefault(event["stage"], {})[event["step"]] = event
    return steps


def _about(run: Run, index: ImageIndex, trained: TrainedModel) -> dict[str, str]:
    started = read_started(run)
    weights, corrections = started.get("weights"), started.get("corrections")
    counts: dict[Split, int] = {split: index.count(split) for split in SPLITS}
    changed = ""
    if corrections:
        numbers = f"{corrections['relabelled']:,} relabelled, {corrections['dropped']:,} dropped"
        changed = f"{numbers} ({corrections['file']})"
    return about_training(
        parse_config(run.read_config(), str(run / CONFIG)),
        origin=Origin(**weights) if weights else None,
        counts=counts,
        classes=len(trained.class_names),
        corrections=changed,
        finished=str(read_status(run).get("time", "")).replace("T", " "),
    )


@contextmanager
def _reported_damage(run: Run) -> Iterator[None]:
    """Say so where a record of the run lacks what a run writes."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration, TemplateError) as error:
        raise CheckpointError(f"{run / REPORT} is damaged or was changed ({error!r}).\n{ADVICE}") from None
