"""The stages of a training, one after the other: find the rate if it is auto, freeze, fit one cycle, save."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from finetune.config.config import Config
from finetune.config.sections import StageConfig
from finetune.config.yaml_writer import dump_config
from finetune.display import Display, duration
from finetune.errors import ResourceError
from finetune.experiment.build import (
    Experiment,
    build_stage_optimizer,
    build_step,
    fit_stage,
    freeze_for_stage,
    plan_groups,
    stage_cycle,
)
from finetune.experiment.decoded_images import DecodedCache
from finetune.experiment.features import caches_features, feature_notes, first_scores, stage_loaders
from finetune.experiment.loaders import StageLoaders
from finetune.experiment.lr_search import find_lr
from finetune.experiment.recipe import build_average
from finetune.lr_finder.result import StartingWeights
from finetune.machine.divided import undivided
from finetune.machine.signals import StopSignals
from finetune.metrics.installed import PREFIX, of_packages, score_of_package
from finetune.metrics.score import Scores
from finetune.notes import Note
from finetune.optim.learning_rates import LearningRate
from finetune.optim.param_groups import LEAST_IMPORTANT_COLUMNS, TABLE_COLUMNS, GroupPlan
from finetune.progress import Bar
from finetune.report.lr_finder import curve_plot, refusal, show_found
from finetune.report.plot import draw_png
from finetune.runs import Run
from finetune.runs.checkpointer import Checkpointer, Saved
from finetune.runs.history import EpochRow
from finetune.runs.recorder import RunRecorder
from finetune.text import counted
from finetune.training.events import START, Epoch, Hooks, Loaders, Reached, Step
from finetune.training.inference import share_of
from finetune.training.state import restore_average, restore_optimizer

AfterEpoch = Callable[[Sequence[EpochRow], Scores], None]
"""Takes the epochs of a run so far, and the scores of the last; what it raises ends the training."""


@dataclass(frozen=True)
class TrainingRun:
    """What a training is written down and shown with."""

    run: Run
    recorder: RunRecorder
    checkpointer: Checkpointer
    stop: StopSignals
    display: Display
    inexact: tuple[str, ...] = ()
    """What has changed since the run began, so that its result may not be that of an uninterrupted one."""
    lr_finds: dict[str, tuple[dict[str, Any], bytes]] = field(default_factory=dict)
    """How the rate of a stage was found, by the stage's name: the numbers and the plot."""
    after_epoch: AfterEpoch | None = None


def run_stages(training: TrainingRun, experiment: Experiment, saved: Saved | None) -> Experiment:
    """Train stage by stage; return the experiment as it was trained, with every rate that was found.

    The best model of all stages is in the recorder, and in the run directory, afterwards.
    """
    loaders_of, display, decoded = StageLoaders(experiment), training.display, DecodedCache(experiment)
    first, reached, tensors = (0, START, {}) if saved is None else (saved.stage, saved.reached, saved.tensors)
    stages = experiment.config.stages
    try:
        with experiment.ranks.meeting_within():
            for number in range(first, len(stages)):
                over = training.recorder.early_stop_of(stages[number].name) is not None
                if reached.epoch < stages[number].epochs and not over:
                    images = loaders_of.of_stage(number)
                    with experiment.ranks.local_first():
                        display.show(decoded.of_stage(number, reached.epoch, images, display.bar))
                    with stage_loaders(experiment, stages[number], images, display.bar) as (loaders, notes):
                        display.show(notes)
                        if number == 0 and saved is None and caches_features(experiment, stages[0]):
                            show_first_score(training, experiment, loaders)
                        experiment = with_found_lr(training, experiment, number, loaders)
                        run_stage(training, experiment, number, loaders, reached, tensors)
                reached, tensors = START, {}
            training.checkpointer.finish_writing()
        training.recorder.flush()
    finally:
        training.checkpointer.close()
        with suppress(ResourceError):
            training.recorder.flush()
    # Not after an error: it may hold on to their work, and what stops them at exit has to find them.
    loaders_of.end_workers()
    return experiment


def with_rates(experiment: Experiment, lrs: Sequence[LearningRate]) -> Experiment:
    """Return the experiment with rates for those of its first stages that say `auto`."""
    stages = list(experiment.config.stages)
    for number, lr in enumerate(lrs):
        if stages[number].lr.auto:
            stages[number] = stages[number].model_copy(update={"lr": lr})
    return replace(experiment, config=experiment.config.model_copy(update={"stages": tuple(stages)}))


def show_first_score(training: TrainingRun, experiment: Experiment, loaders: Loaders) -> None:
    """Say how good a linear fit to the features of the pretrained backbone is, and write it down."""
    name = experiment.index.task.default_monitor
    scores = first_scores(experiment, 0, loaders, training.display.bar)
    score = scores.map if name == "val_map" else scores.accuracy
    training.recorder.add_first_score(experiment.config.stages[0].name, name, score)
    shown = f"mAP {score:.4f}" if name == "val_map" else f"accuracy {score:.2%}"
    training.display.say(f"ridge   {shown}, of a linear fit to the features; nothing is trained yet")


def with_found_lr(training: TrainingRun, experiment: Experiment, number: int, loaders: Loaders) -> Experiment:
    """Find the rate of a stage that says `lr: auto`, and write down how; give the experiment that has it.

    Raises:
        DivergenceError: no rate that can be answered for.
    """
    config, stage = experiment.config, experiment.config.stages[number]
    run, display = training.run, training.display
    training.checkpointer.start_stage(number, stage.name, tuple(stage.lr for stage in config.stages))
    if not stage.lr.auto:
        return experiment
    trained = tuple(before.name for before in config.stages[:number])
    before = StartingWeights(config.model.weights, trained_stages=trained)
    display.say(f"\nfinding the rate of stage {stage.name}, from {before}")
    found = find_lr(experiment, number, loaders, weights=before, new_bar=display.bar)
    found = experiment.ranks.of_first(found)
    training.lr_finds[stage.name] = found.to_dict(), draw_png(curve_plot(found))
    run.write_lr_find(stage.name, *training.lr_finds[stage.name])
    training.recorder.add_lr_find(stage.name, lr=found.lr, by=list(found.found_by), seconds=found.seconds)
    show_found(found, display)
    if found.lr is None:
        raise refusal(found)
    lrs = [stage.lr for stage in config.stages]
    lrs[number] = stage.lr.peaking_at(found.lr)
    experiment = with_rates(experiment, lrs)
    run.write_config(resolved_config(experiment))
    training.checkpointer.start_stage(number, stage.name, tuple(lrs))
    training.checkpointer.save()  # it is not looked for again
    return experiment


def run_stage(
    training: TrainingRun,
    experiment: Experiment,
    number: int,
    loaders: Loaders,
    reached: Reached,
    tensors: dict[str, Tensor],
) -> None:
    """Fit one cycle to the learning parameters of a stage, from where it was saved if it was."""
    config, stage, display = experiment.config, experiment.config.stages[number], training.display
    plans = plan_groups(config, stage, experiment.model)
    freeze_for_stage(stage, experiment.model)
    experiment.ranks.share_tensors(undivided(experiment.model))
    show_stage(number, stage, plans, len(config.stages), display)
    if reached == START:
        training.recorder.start_stage(stage.name, [plan.summary() for plan in plans])
    optimizer = build_stage_optimizer(config, plans, experiment.ranks)
    restore_optimizer(optimizer, tensors)
    step = build_step(experiment, optimizer, number, share=share_of(loaders.train))
    average = build_average(config, step)
    if average is not None:
        restore_average(average, tensors)
    tensors.clear()  # each rank was sent all of it
    training.checkpointer.follow(optimizer, average)
    display.show(schedule_notes(config, stage_cycle(config, optimizer).moms))
    display.show(feature_notes(experiment, stage))
    images = len(loaders.train) * config.data.images_per_step * stage.epochs
    with display.bar(stage.name, images) as bar, training.stop.deferred():
        watch = _Watch(experiment, stage, training, bar)
        hooks = Hooks(
            step=watch.step,
            epoch=watch.epoch,
            val_batch=watch.val_batch,
            due=training.checkpointer.due,
            save=training.checkpointer.save,
        )
        fit_stage(experiment, step, loaders, hooks, epochs=stage.epochs, reached=reached, average=average)


def schedule_notes(config: Config, moms: tuple[float, float, float] | None) -> list[Note]:
    """Say where the schedule of a stage is not the usual one, a moving rate and a moving momentum."""
    name, notes = config.optimizer.name, []
    if moms is None:
        notes.append(f"{name} has no momentum; only the rate follows the cycle")
    elif config.optimizer.momentum is not None:
        notes.append(f"the momentum stays at {config.optimizer.momentum:g}; only the rate follows the cycle")
    if name == "adadelta":
        notes.append("adadelta finds its own rate; lr is a factor on it, and 1 is the usual one")
    return [Note(note) for note in notes]


# What is monitored and has no column of its own: its heading, and its value in a row with the format.
_MONITORED: Mapping[str, tuple[str, Callable[[EpochRow], tuple[float, str]]]] = {
    "val_balanced_accuracy": ("balanced", lambda row: (row.val_balanced_accuracy, ".2%")),
    "val_macro_f1": ("macro F1", lambda row: (row.val_macro_f1, ".4f")),
    "val_map": ("mAP", lambda row: (row.val_map, ".4f")),
}


def _of_package(monitor: str) -> tuple[str, Callable[[EpochRow], tuple[float, str]]]:
    return monitor.removeprefix(PREFIX), lambda row: (row.value(monitor), ".4f")


class _Watch:
    """Follow one stage: show it, and write it down."""

    def __init__(self, experiment: Experiment, stage: StageConfig, training: TrainingRun, bar: Bar) -> None:
        self._experiment, self._stage, self._bar = experiment, stage, bar
        self._recorder, self._after_epoch = training.recorder, training.after_epoch
        self._display = display = training.display
        names = dict.fromkeys([experiment.index.task.default_monitor, experiment.config.monitor])
        self._shown = [_MONITORED[name] for name in names if name in _MONITORED]
        config = experiment.config
        self._of_packages = of_packages((config.monitor, config.early_stopping.metric))
        self._shown += [_of_package(name) for name in self._of_packages]
        self._spare = self._spare_columns(display.width)
        headings = "".join(f"  {heading:>8}" for heading, _ in self._shown)
        spare = "".join(f"  {heading:>8}" for heading in self._spare)
        display.say(f"   epoch  train loss  val loss  accuracy{headings}{spare}")

    def step(self, step: Step) -> None:
        self._recorder.add_step(self._stage.name, step)
        self._bar.advance_to((step.step + 1) * step.images, f"epoch {step.epoch + 1}  loss {step.loss:.4f}")

    def val_batch(self, done: int, total: int) -> None:
        self._bar.advance_to(None, f"validating, batch {done} of {total}")

    def _scores_of_packages(self, epoch: Epoch) -> dict[str, float]:
        if not self._of_packages:
            return {}
        probabilities = self._experiment.index.task.probabilities(epoch.val_logits.double())
        return {name: score_of_package(name, probabilities, epoch.val_targets) for name in self._of_packages}

    def epoch(self, epoch: Epoch) -> bool:
        index = self._experiment.index
        scores = index.task.score(epoch.val_logits, epoch.val_targets, index.class_names)
        theirs = self._scores_of_packages(epoch)
        row = self._recorder.add_epoch(self._stage.name, epoch, scores, self._experiment.model, theirs)
        if self._after_epoch is not None:
            self._after_epoch(self._recorder.history, scores)
        count, accuracy = f"{row.epoch}/{self._stage.epochs}", f"{row.val_accuracy:.2%}"
        shown = "".join(f"  {format(*value(row)):>8}" for _, value in self._shown)
        cells = {"time": duration(row.seconds), "images/s": f"{row.images_per_second:.0f}"}
        spare = "".join(f"  {cells[heading]:>8}" for heading in self._spare)
        self._display.say(
            f"{count:>8}  {row.train_loss:>10.4f}  {row.val_loss:>8.4f}  {accuracy:>8}{shown}{spare}"
            + ("  best" if self._recorder.best is row else "")
        )
        stop = self._recorder.early_stop_of(self._stage.name)
        if stop is not None:
            self._display.say(str(stop))
        return self._experiment.ranks.of_first(stop is not None)

    def _spare_columns(self, width: int) -> tuple[str, ...]:
        """Return the last columns that a terminal has room for: a line that wraps is no table."""
        column = len("  accuracy")
        used = len("   epoch  train loss  val loss  accuracy") + column * len(self._shown) + len("  best")
        return ("time", "images/s")[: max((width - used) // column, 0)]


def show_stage(
    number: int, stage: StageConfig, plans: list[GroupPlan], stages: int, display: Display
) -> None:
    """Print the table of layer groups that stands before each stage."""
    size = "" if stage.image_size is None else f", trained at {stage.image_size} px"
    epochs = counted(stage.epochs, "epoch")
    title = f"stage {number + 1} of {stages}: {stage.name}, {epochs}, lr {stage.lr}{size}"
    display.say("")
    display.table(
        TABLE_COLUMNS,
        [plan.row() for plan in plans],
        title=title,
        least_important=LEAST_IMPORTANT_COLUMNS,
    )


def resolved_config(experiment: Experiment) -> str:
    """Return the resolved config as YAML, with the peak rate of every group in every stage as comments."""
    lines = ["", "# Peak learning rate of each layer group:"]
    for stage in experiment.config.stages:
        plans = plan_groups(experiment.config, stage, experiment.model)
        rates = ", ".join("frozen" if plan.lr is None else str(plan.shown_lr) for plan in plans)
        lines.append(f"#   {stage.name}: {rates}")
    return dump_config(experiment.config) + "\n".join(lines) + "\n"
