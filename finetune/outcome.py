"""The last page of the story of `finetune train`: write its report, and show it."""

from dataclasses import asdict, dataclass

from finetune.evaluate import evaluate_split
from finetune.experiment import Experiment
from finetune.progress import Display, duration
from finetune.report import report_page, show_scores
from finetune.run import REPORT, Run
from finetune.stages import Work
from finetune.trained import load_trained


@dataclass(frozen=True)
class Outcome:
    """What a training came to; the last line of `train --json`."""

    run_dir: str
    val_loss: float
    """Of the best model, mean cross-entropy in nats."""
    val_accuracy: float
    """Of the best model, 0–1."""
    epochs: int
    """All stages together."""
    seconds: float


def write_outcome(work: Work, experiment: Experiment, display: Display) -> Outcome:
    """Write the report of the best model, and show it."""
    run, journal, seconds = work.run, work.journal, work.checkpointer.seconds
    scores = {"val": journal.best_scores}
    if experiment.index.count("test"):
        trained = load_trained(run.directory, experiment.device)
        scores["test"] = evaluate_split(trained, experiment.index, "test", display)
    report = {
        "run_dir": str(run.directory),
        "best": asdict(journal.best),
        "epochs": len(journal.history),
        "seconds": round(seconds, 3),
        **({"inexact": list(work.inexact)} if work.inexact else {}),
        "train_images": experiment.index.count("train"),
        "bad_images": [image._asdict() for image in experiment.index.bad],
        "early_stops": [asdict(stop) for stop in journal.early_stops],
        **{split: of_split.to_dict() for split, of_split in scores.items()},
    }
    run.write_report(report)
    page = report_page(
        report,
        scores=scores,
        history=journal.history,
        best=journal.best,
        config=run.read_config(),
        lr_finds=run.read_lr_finds(stage.name for stage in experiment.config.stages),
    )
    run.write_report_page(page)
    run.append_events([{"event": "done", **asdict(journal.best)}])
    for split, of_split in scores.items():
        best = f"best model (stage {journal.best.stage}, epoch {journal.best.epoch})"
        display.say(f"\n{best} on {'validation' if split == 'val' else 'test'} images:")
        show_scores(display, of_split)
    display.say(f"\ndone in {duration(seconds)}: {run.directory}")
    return finished_outcome(run)


def finished_outcome(run: Run) -> Outcome:
    """Give the outcome of a run that was finished before."""
    report = run.read_json(REPORT)
    best = report["best"]
    return Outcome(
        str(run.directory), best["val_loss"], best["val_accuracy"], report["epochs"], report["seconds"]
    )
