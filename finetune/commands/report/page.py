"""What the report page of a run says, put together from the run and from answers to its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from finetune.analysis.calibration import Bin, Coverage
from finetune.choices import Split
from finetune.commands.report.judged import Judged
from finetune.commands.report.pictures import draw_pictures
from finetune.commands.train.telling import TellingAnswers, telling_answers
from finetune.config.config import Config
from finetune.data.index import ImageIndex
from finetune.data.quality.findings import find_few, warnings_of_copies
from finetune.data.quality.fingerprint import Fingerprint
from finetune.metrics.score import Scores
from finetune.progress import NewBar
from finetune.report.html_page import ReportPage, TrainingPart, report_page
from finetune.report.pictures import Pictures
from finetune.text import counted

SPLITS: tuple[Split, ...] = get_args(Split)
_BAD_SHOWN = 5


@dataclass(frozen=True)
class Seen:
    """What can be shown of images only where they are at hand."""

    pictures: Pictures = Pictures()  # noqa: RUF009  (frozen)
    interval: tuple[float, float] | None = None
    bins: Sequence[Bin] = ()


def see(judged: Judged, telling: TellingAnswers, scores: Scores, new_bar: NewBar) -> Seen:
    """Draw the pictures of a page, and compute what needs all answers."""
    pictures = draw_pictures(judged, telling.mistakes, telling.close, new_bar)
    return Seen(pictures, judged.interval(scores), judged.confidence.bins)


def page_of_run(
    name: str,
    training: TrainingPart,
    seen: Seen,
    *,
    scores: Mapping[str, Scores],
    about: Mapping[str, str],
    findings: Sequence[tuple[str, str]],
    left_out: Sequence[str] = (),
) -> str:
    """Render the page of a run; `scores` are by split."""
    headings = {"val": "Validation images", "test": "Test images"}
    calibration = training.report.get("calibration", {})
    return report_page(
        ReportPage(
            name,
            scores={headings[split]: of_split for split, of_split in scores.items()},
            about=about,
            pictures=seen.pictures,
            interval=seen.interval,
            bins=seen.bins,
            coverage=[Coverage(**row) for row in calibration.get("coverage", ())],
            findings=findings,
            left_out=left_out,
            training=training,
        )
    )


def page_of_evaluation(judged: Judged, scores: Scores, data: Path | None, new_bar: NewBar) -> str:
    """Render the page of what a model is worth on some images."""
    trained, confidence = judged.trained, judged.confidence
    telling = telling_answers(trained, judged.index, judged.logits, judged.targets, split=judged.split)
    seen = see(judged, telling, scores, new_bar)
    images = f"{judged.split} images of the run" if data is None else str(data)
    return report_page(
        ReportPage(
            trained.run.directory.absolute().name,
            scores={f"Scored on {images}": scores},
            about={
                "Model": f"{trained.run.directory}, {trained.model.spec.arch} ({trained.best})",
                "Images": f"{images} ({counted(scores.images, 'image')})",
                "Classes": f"{len(trained.class_names):,}",
            },
            pictures=seen.pictures,
            interval=seen.interval,
            bins=seen.bins,
            coverage=confidence.coverages,
            error=confidence.error,
            findings=[("warning", line) for line in judged.index.warnings],
        )
    )


def about_training(
    config: Config,
    *,
    origin: object | None,
    counts: Mapping[Split, int],
    classes: int,
    corrections: str,
    finished: str,
) -> dict[str, str]:
    """Say what was trained on what and when, for the head of the page."""
    numbers = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts.get(split))
    return {
        "Architecture": config.model.arch,
        "Weights": config.model.weights if origin is None else f"{config.model.weights}: {origin}",
        "Data": f"{config.data.path} ({numbers} images)",
        "Classes": f"{classes:,}",
        **({"Corrections": corrections} if corrections else {}),
        "Finished": finished,
    }


def data_findings(
    index: ImageIndex, files: Mapping[str, Fingerprint], bad: Sequence[Mapping[str, str]]
) -> list[tuple[str, str]]:
    """Return level and text of what is known of the data without another look at an image."""
    found = [("warning", f"left out, unreadable: {one['name']}: {one['reason']}") for one in bad[:_BAD_SHOWN]]
    if len(bad) > _BAD_SHOWN:
        found.append(("warning", f"and {len(bad) - _BAD_SHOWN:,} more that cannot be read"))
    copies = warnings_of_copies(index, files) if files else []
    found += [("warning", line) for line in [*index.warnings, *copies]]
    return found + [(finding.level, finding.message) for finding in find_few(index)]
