"""The story of `finetune train`: from a config to a run directory with a trained model and its report."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os.path import exists
from pathlib import Path

from finetune.commands.check.check import use_weights_at_hand
from finetune.commands.prepare import prepare
from finetune.commands.settings import RunOptions, is_run
from finetune.commands.train.alike import check_alike, options_after_restart
from finetune.commands.train.finish import Outcome, finish_run, finished_outcome
from finetune.commands.train.resume import (
    check_classes,
    check_config,
    check_data,
    check_environment,
    config_as_given,
    earlier_changes,
    flat_values,
    refuse_or_note,
    starting_facts,
)
from finetune.commands.train.stages import TrainingRun, resolved_config, run_stages, show_stage, with_rates
from finetune.commands.train.status import recorded_status
from finetune.config.config import Config
from finetune.data.index import ImageIndex
from finetune.data.loading.transforms import mirrors
from finetune.data.quality.findings import warnings_of_copies
from finetune.data.quality.fingerprint import Fingerprint, take_fingerprints
from finetune.display import Display
from finetune.errors import ConfigError, Stopped
from finetune.experiment.build import Experiment, early_stopping, plan_groups
from finetune.experiment.features import feature_notes
from finetune.experiment.packages import taken_from_packages
from finetune.experiment.read_data import resolved_monitor
from finetune.loggers.fan_out import open_loggers, require_loggers
from finetune.machine.collection import no_collection
from finetune.machine.ranks import ALONE, Ranks
from finetune.machine.signals import StopSignals
from finetune.notes import Note, as_warnings
from finetune.runs import Run, create_run, find_run, resume_run
from finetune.runs.checkpoint_writer import writes_in_thread
from finetune.runs.checkpointer import Checkpointer, CheckpointSchedule, Saved, checkpoint_name
from finetune.runs.recorder import RunRecorder
from finetune.runs.records import read_beginning, read_status
from finetune.runs.trained_model import describe_model
from finetune.text import counted, expanded
from finetune.training.events import Reached


def train(
    config: Config,
    options: RunOptions,
    *,
    name: str,
    display: Display,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train as the config says, and leave a run directory.

    Of several processes rank 0 does this; the others `follow`.

    Args:
        config: the experiment.
        options: in which run directory, whether to resume it, and who watches.
        name: what the run directory is called after, where none is named.
        display: where to show the progress.
        ranks: the processes that train together.

    Raises:
        FinetuneError: whatever the user can fix, or a signal; the run directory's status says so too.
    """
    require_loggers(config.loggers)
    check_alike(ranks, config)
    options = options_after_restart(options, ranks)
    parent, run_dir, resume = _parent_of_runs(config.output.dir), options.run_dir, options.resume
    begun = run_dir or find_run(parent, name) if resume else None
    with StopSignals(ranks) as stop, before_the_beginning(stop):
        if begun is not None and is_run(begun):
            ranks.remember(str(begun.absolute()))
            with resume_run(begun) as run:
                return resume_training(run, config, stop, options, display=display, ranks=ranks)
        if resume:
            display.say(f"nothing to resume in {run_dir or parent}; starting a new run")
        with create_run(run_dir, parent=parent, name=name, overwrite=options.overwrite, resume=resume) as run:
            return begin(run, config, stop, options, display=display, ranks=ranks)


def _parent_of_runs(written: str) -> Path:
    """Return the folder of the unnamed runs.

    Raises:
        ConfigError: it begins with `~` and a name that no user has.
    """
    folder = expanded(written)
    if folder.parts[0].startswith("~") and not exists(folder.parts[0]):
        raise ConfigError(f"output.dir: there is no user called {folder.parts[0][1:]!r}; write a folder.")
    return folder


def begin(
    run: Run, config: Config, stop: StopSignals, options: RunOptions, *, display: Display, ranks: Ranks
) -> Outcome:
    """Train from the beginning."""
    ranks.of_first(config)
    ranks.remember(str(run.directory.absolute()))
    experiment = prepare(config, display, ranks)
    files = fingerprint(experiment.index, {}, display)
    training = replace(open_record(run, experiment, stop, display), after_epoch=options.after_epoch)
    with recorded_status(run, training.recorder, stop, batch_size=experiment.config.data.batch_size):
        training.checkpointer.check_space(averaged=config.ema is not None)
        write_beginning(training, config, experiment, files)
        experiment = run_stages(training, experiment, ranks.of_first(None))
        return finish_run(training, experiment)


def resume_training(
    run: Run, config: Config, stop: StopSignals, options: RunOptions, *, display: Display, ranks: Ranks
) -> Outcome:
    """Resume a run from its newest checkpoint; return its outcome if there is nothing left to do.

    Raises:
        CheckpointError: the config or the data would make it another training.
    """
    before, force = config_as_given(run), options.force
    changes = refuse_or_note(
        run, check_config(before, config), "another config", force=force, how_to_fix="Restore these values"
    )
    more_stages, status = len(config.stages) > len(before.stages), read_status(run)
    if status["state"] == "done" and not more_stages and not changes:
        display.say(f"{run.directory} is finished; there is nothing left to do")
        ranks.of_first(None)
        return finished_outcome(run)
    experiment = prepare(ranks.of_first(with_precision_of(run, config)), display, ranks)
    check_classes(run, experiment.index)
    files = fingerprint(experiment.index, run.read_files() if experiment.index.root else {}, display)
    changes += refuse_or_note(
        run, check_data(run, experiment.index, files), "other data", force=force, how_to_fix="Restore them"
    )
    changes += check_environment(run, experiment)
    training = replace(open_record(run, experiment, stop, display), after_epoch=options.after_epoch)
    training = replace(training, inexact=(*earlier_changes(run), *changes))
    with recorded_status(run, training.recorder, stop, batch_size=experiment.config.data.batch_size):
        run.write_status("running", 0, resumable=True)
        end = checkpoint_name(len(config.stages) - 1, Reached(config.stages[-1].epochs))
        trained = status.get("last_checkpoint") == end and not status.get("resumable")
        saved = training.checkpointer.resume(newest=None if trained else status.get("last_checkpoint"))
        if saved is not None:
            experiment = with_rates(experiment, saved.lrs)
            training.lr_finds.update(run.read_lr_finds(stage.name for stage in config.stages))
        ranks.of_first(saved)
        show_resume(training, experiment, saved, changes)
        if changes or more_stages:
            write_beginning(training, config, experiment, files)
        experiment = run_stages(training, experiment, saved)
        return finish_run(training, experiment)


def open_record(run: Run, experiment: Experiment, stop: StopSignals, display: Display) -> TrainingRun:
    """Open the record of the training."""
    config = experiment.config
    description = describe_model(
        experiment.model.spec,
        experiment.index,
        experiment.limits,
        batch_size=config.data.batch_size,
        mirrored=mirrors(config.data.augment),
        packages=taken_from_packages(config),
    )
    recorder = RunRecorder(
        run,
        monitor=resolved_monitor(config),
        description=description,
        epochs={stage.name: stage.epochs for stage in config.stages},
        early_stopping=early_stopping(config),
        sink=open_loggers(config.loggers, run.directory, flat_values(config), display.warn)
        if experiment.ranks.is_first
        else None,
        ranks=experiment.ranks,
    )
    often = config.checkpoint
    schedule = CheckpointSchedule(often.seconds, often.steps, often.keep)
    checkpointer = Checkpointer(
        run,
        experiment.model,
        recorder,
        schedule=schedule,
        stop=stop,
        warn=display.warn,
        in_thread=experiment.ranks.is_first and writes_in_thread(experiment.device),
    )
    return TrainingRun(run, recorder, checkpointer, stop, display)


@contextmanager
def before_the_beginning(stop: StopSignals) -> Iterator[None]:
    """Say that nothing was trained if a signal comes before there is anything to resume."""
    try:
        yield
    except KeyboardInterrupt:
        if stop.received is None or stop.insisted:
            raise
        raise Stopped(
            f"Stopped by {stop.received} before the training began; there was nothing to save.\n"
            "Start it again with the same command."
        ) from None


def fingerprint(
    index: ImageIndex, known: Mapping[str, Fingerprint], display: Display
) -> dict[str, Fingerprint]:
    """Take the fingerprint of every image, and warn of those that are copies."""
    with display.bar("fingerprints of images", len(index.samples)) as bar, no_collection():
        files = take_fingerprints(index, known, bar.advance_to)
    display.show(as_warnings(warnings_of_copies(index, files)))
    return files


def with_precision_of(run: Run, config: Config) -> Config:
    """Return the config with the precision that was chosen when the run began: another machine may differ."""
    if config.precision != "auto":
        return config
    chosen = read_beginning(run)["precision"]
    return config.model_copy(update={"precision": chosen})


def show_resume(
    training: TrainingRun,
    experiment: Experiment,
    saved: Saved | None,
    changes: Sequence[str],
) -> None:
    """Show and record where training resumes, and what has changed since it began."""
    if saved is None:
        where = "the beginning: nothing was saved yet"
    else:
        stage = experiment.config.stages[saved.stage]
        batch = f", batch {saved.reached.batch}" if saved.reached.batch else ""
        where = f"stage {stage.name}, after epoch {saved.reached.epoch} of {stage.epochs}{batch}"
    training.recorder.add_resume(where, changes)
    training.display.say(f"resume  {training.run.directory} from {where}")
    if changes:
        lines = "".join(f"\n  {change}" for change in changes)
        training.display.warn(f"the result will not be exactly that of an uninterrupted run:{lines}")


def show_plan(config: Config, display: Display) -> None:
    """Show what a training would do, and do none of it: nothing is downloaded either."""
    at_hand, notes = use_weights_at_hand(config)
    display.show(Note(f"note    {note.message}\n        {note.advice}") for note in notes)
    experiment = prepare(at_hand, display)
    display.show(as_warnings(warnings_of_copies(experiment.index)))
    for number, stage in enumerate(config.stages):
        plans = plan_groups(experiment.config, stage, experiment.model)
        show_stage(number, stage, plans, len(config.stages), display)
        display.show(feature_notes(experiment, stage))
    steps = experiment.index.count("train") // experiment.config.data.images_per_step
    epochs = sum(stage.epochs for stage in config.stages)
    display.say(
        f"\n{counted(steps, 'step')} an epoch, {counted(epochs, 'epoch')}, "
        f"{counted(steps * epochs, 'step')}. Nothing was trained."
    )


def write_beginning(
    training: TrainingRun, config: Config, experiment: Experiment, files: Mapping[str, Fingerprint]
) -> None:
    """Write down what will be trained on what, before the first step."""
    run = training.run
    run.write_config(resolved_config(experiment))
    run.write_status("running", 0, resumable=True)
    # Last: where `started.json` is, there is a run to resume.
    run.write_beginning(
        class_names=experiment.index.class_names,
        split=(experiment.index.header, experiment.index.rows()),
        files=files,
        started=starting_facts(config, experiment, training.inexact),
    )
