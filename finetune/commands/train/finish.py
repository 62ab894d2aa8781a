"""The last page of the story of `finetune train`: judge the run by its curves, write its report, show it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.analysis.calibration import Calibration
from finetune.commands.evaluate.ablation import Ablation, ablate_metadata, show_ablations
from finetune.commands.evaluate.evaluate import evaluate_split
from finetune.commands.report.page import (
    SPLITS,
    Seen,
    about_training,
    data_findings,
    page_of_run,
    see,
)
from finetune.commands.train.assess import assess
from finetune.commands.train.resume import describe_environment
from finetune.commands.train.stages import TrainingRun, resolved_config
from finetune.display import duration
from finetune.experiment.build import Experiment
from finetune.experiment.read_data import resolved_monitor
from finetune.experiment.recipe import build_mix
from finetune.machine.divided import has_divided
from finetune.metrics.score import Scores
from finetune.metrics.single_label import SingleLabelScores
from finetune.model import rebuild_classifier
from finetune.report.diagnosis import Finding, Knobs, Predictions, StageCurves, diagnose
from finetune.report.html_page import TrainingPart
from finetune.report.scores import accuracy_interval, show_scores
from finetune.runs import Run
from finetune.runs.records import read_report
from finetune.runs.trained_model import TrainedModel


@dataclass(frozen=True)
class Outcome:
    """What a training came to; the last line of `train --json`."""

    run_dir: str
    val_loss: float
    """Of the best model, mean cross-entropy in nats."""
    val_accuracy: float
    """Of the best model, 0–1."""
    val_map: float
    """Mean average precision of the best model, 0–1."""
    epochs: int
    """All stages together."""
    seconds: float

    def __str__(self) -> str:
        return (
            f"done in {duration(self.seconds)}: {self.run_dir} (validation loss {self.val_loss:.4f}, "
            f"accuracy {self.val_accuracy:.2%}, mAP {self.val_map:.4f})"
        )


def diagnose_run(training: TrainingRun, experiment: Experiment) -> list[Finding]:
    """Judge the whole run by its config, with the rates that were used, its epochs and its steps."""
    config, index, recorder = experiment.config, experiment.index, training.recorder
    if config.loss.name == "focal" or config.data.balance == "loss":
        return []  # what is trained is another loss than that of the validation, and cannot be set beside it
    stages = [
        StageCurves(
            stage.name,
            stage.epochs,
            stage.lr,
            rows,
            _in_order(recorder.steps.get(stage.name, {})),
            head_alone=stage.train in ("head", 1),
            rate_was_found=stage.name in training.lr_finds,
        )
        for stage in config.stages
        if (rows := [row for row in recorder.history if row.stage == stage.name])
    ]
    counts, smoothing = list(index.counts("train").values()), config.loss.label_smoothing
    mix = build_mix(config, len(index.class_names))
    baseline = index.task.baseline(
        counts, index.count("train"), label_smoothing=smoothing, shares=mix.shares() if mix else ()
    )
    knobs = Knobs(
        **baseline._asdict(),
        weight_decay=config.optimizer.weight_decay,
        augment=config.data.augment,
        mixed=mix is not None,
        monitor=resolved_monitor(config),
        trains_all=config.stages[-1].train in ("all", config.model.layer_groups),
        pretrained=config.model.weights != "none",
    )
    return diagnose(stages, knobs, _predictions(recorder.best_scores))


def _predictions(scores: Scores) -> Predictions | None:
    """Return how the validation images are divided among the classes; None where they may have several."""
    if not isinstance(scores, SingleLabelScores):
        return None
    return Predictions(
        class_names=scores.class_names,
        predicted=scores.predicted,
        actual=tuple(row.support for row in scores.per_class),
        loss=scores.loss,
    )


def _in_order(steps: Mapping[int, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [steps[number] for number in sorted(steps)]


def finish_run(training: TrainingRun, experiment: Experiment) -> Outcome:
    """Score the best model, write its report, and show it."""
    verdict = judge_run(training, experiment)
    write_report(training, experiment, verdict)
    show_report(training, experiment, verdict)
    return outcome_of(training.run, verdict.report)


@dataclass(frozen=True)
class Verdict:
    """What is reported of a finished run, of its best model."""

    scores: Mapping[str, Scores]
    """By split; "val" is always there."""
    ablations: Sequence[Ablation]
    findings: Sequence[Finding]
    calibration: Calibration
    seen: Seen
    """Pictures, and what else of the page needs the images."""
    report: Mapping[str, Any]
    """The content of report.json."""


def judge_run(training: TrainingRun, experiment: Experiment) -> Verdict:
    """Assess the best model, score it on the test images if there are any, and diagnose its curves."""
    display = training.display
    scores = {"val": training.recorder.best_scores}
    trained = best_model(training, experiment)
    index = experiment.index
    assessment = assess(trained, index, training.recorder.best_description, display.bar)
    if experiment.index.count("test"):
        scores["test"] = evaluate_split(trained, experiment.index, "test", display.bar)
    ablations = ablate_metadata(trained, experiment.index, display.bar)
    findings = diagnose_run(training, experiment)
    report = build_report(training, experiment, scores, ablations, findings)
    report["calibration"] = assessment.calibration.to_dict()
    report |= assessment.telling.to_dict()
    seen = see(assessment.judged, assessment.telling, scores["val"], display.bar)
    return Verdict(scores, ablations, findings, assessment.calibration, seen, report)


def write_report(training: TrainingRun, experiment: Experiment, verdict: Verdict) -> None:
    """Write the report for programs, the page for people, and the last event."""
    run, recorder = training.run, training.recorder
    run.write_report(verdict.report)
    index = experiment.index
    page = page_of_run(
        run.directory.absolute().name,
        TrainingPart(
            verdict.report,
            recorder.history,
            config=resolved_config(experiment),
            steps=recorder.steps,
            lr_finds=list(training.lr_finds.values()),
            environment=describe_environment(experiment),
        ),
        verdict.seen,
        scores=verdict.scores,
        about=about_run(experiment),
        findings=data_findings(index, run.read_files(), verdict.report["bad_images"]),
    )
    run.write_report_page(page)
    run.append_events([{"event": "done", **recorder.best.to_dict()}])


def show_report(training: TrainingRun, experiment: Experiment, verdict: Verdict) -> None:
    """Show scores, ablations and diagnosis, and where the run is."""
    recorder, display = training.recorder, training.display
    for split, of_split in verdict.scores.items():
        best = f"best model (stage {recorder.best.stage}, epoch {recorder.best.epoch})"
        display.say(f"\n{best} on {'validation' if split == 'val' else 'test'} images:")
        show_scores(display, of_split)
    display.say(f"\n{verdict.calibration}")
    metric = resolved_monitor(experiment.config)
    show_ablations(verdict.ablations, recorder.best_scores, metric, display)
    if verdict.findings:
        display.say("\n" + "\n".join(["diagnosis:", *map(str, verdict.findings)]))
    display.say(f"\ndone in {duration(verdict.report['seconds'])}: {training.run.directory}")


def about_run(experiment: Experiment) -> dict[str, str]:
    """Say what was trained on what and when, for the head of the page."""
    index = experiment.index
    return about_training(
        experiment.config,
        origin=experiment.model.origin,
        counts={split: index.count(split) for split in SPLITS},
        classes=len(index.class_names),
        corrections=str(index.corrections or ""),
        finished=time.strftime("%Y-%m-%d %H:%M %Z"),
    )


def build_report(
    training: TrainingRun,
    experiment: Experiment,
    scores: Mapping[str, Scores],
    ablations: Sequence[Ablation],
    findings: Sequence[Finding],
) -> dict[str, Any]:
    """Return the content of report.json; `scores` are those of the best model, by split."""
    recorder, metric = training.recorder, resolved_monitor(experiment.config)
    return {
        "run_dir": str(training.run.directory),
        "best": recorder.best.to_dict(),
        "epochs": len(recorder.history),
        "seconds": round(training.checkpointer.seconds, 3),
        **({"inexact": list(training.inexact)} if training.inexact else {}),
        "train_images": experiment.index.count("train"),
        "bad_images": [image._asdict() for image in experiment.index.bad],
        "early_stops": [asdict(stop) for stop in recorder.early_stops],
        "diagnosis": [asdict(finding) for finding in findings],
        "monitor": metric,
        "ablations": [one.to_dict(metric) for one in ablations],
        "accuracy_intervals": {split: accuracy_interval(of_split) for split, of_split in scores.items()},
        **{split: of_split.to_dict() for split, of_split in scores.items()},
    }


def best_model(training: TrainingRun, experiment: Experiment) -> TrainedModel:
    """Put the best weights into the model, which is trained no more, and return it ready for use."""
    recorder, model = training.recorder, experiment.model
    if has_divided(model):  # the other ranks have come to their end
        model = rebuild_classifier(model.spec.to_dict(), recorder.best_weights).to(experiment.device)
    else:
        model.load_state_dict(recorder.best_weights)
    return TrainedModel.described(training.run, model, recorder.best_description, experiment.device)


def finished_outcome(run: Run) -> Outcome:
    """Return the outcome of a run that an earlier process finished."""
    return outcome_of(run, read_report(run))


def outcome_of(run: Run, report: Mapping[str, Any]) -> Outcome:
    """Return the outcome of a run from its report."""
    best = report["best"]
    return Outcome(
        run_dir=str(run.directory),
        val_loss=best["val_loss"],
        val_accuracy=best["val_accuracy"],
        val_map=best["val_map"],
        epochs=report["epochs"],
        seconds=report["seconds"],
    )
