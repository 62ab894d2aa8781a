"""The story of `finetune train`: from a config to a run directory with a trained model and its report."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from finetune.config import Config, StageConfig
from finetune.config_file import dump_config
from finetune.ending import recorded_end
from finetune.evaluate import evaluate_split
from finetune.experiment import (
    Experiment,
    build_loaders,
    build_loss,
    build_stage_optimizer,
    freeze_and_plan,
    momentum_cycle,
    prepare,
)
from finetune.journal import Journal
from finetune.learner import Epoch, Hooks, Loaders, OneCycle, Position, Step, fit_one_cycle
from finetune.lr_report import curve_plot, refusal, show_found
from finetune.lr_search import find_lr, starting_weights
from finetune.metrics import score
from finetune.plan import TABLE_COLUMNS, GroupPlan
from finetune.plot import draw_png
from finetune.progress import Bar, Display, duration
from finetune.report import report_page, show_scores
from finetune.run import Run, create_run
from finetune.trained import describe_model, load_trained


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


def train(config: Config, *, name: str, run_dir: Path | None, overwrite: bool, display: Display) -> Outcome:
    """Train as the config says, and leave a run directory.

    Args:
        config: the experiment.
        name: what the run directory is called after, where `run_dir` is None.
        run_dir: the run directory, or None for a new one in `output.dir`.
        overwrite: move aside what `run_dir` holds.
        display: where to tell how it goes.

    Raises:
        FinetuneError: whatever the user can mend; the run directory's status says so too.
    """
    started = time.perf_counter()
    with create_run(run_dir, parent=Path(config.output.dir), name=name, overwrite=overwrite) as run:
        experiment = prepare(config, display)
        journal = start_journal(run, experiment)
        with recorded_end(run, journal):
            write_beginning(run, experiment)
            run_stages(run, experiment, journal, display)
            seconds = time.perf_counter() - started
            write_outcome(run, experiment, journal, seconds, display)
    best = journal.best_scores
    return Outcome(str(run.directory), best.loss, best.accuracy, len(journal.history), round(seconds, 3))


def show_plan(config: Config, display: Display) -> None:
    """Tell what training would do, and do none of it."""
    experiment = prepare(config, display)
    for number, stage in enumerate(config.stages):
        plans = freeze_and_plan(experiment.config, stage, experiment.model)
        show_stage(number, stage, plans, len(config.stages), display)
    steps = experiment.index.count("train") // experiment.config.data.batch_size
    epochs = sum(stage.epochs for stage in config.stages)
    display.say(
        f"\n{steps:,} steps an epoch, {epochs} epochs, {steps * epochs:,} steps. Nothing was trained."
    )


def write_beginning(run: Run, experiment: Experiment) -> None:
    """Write down what will be trained on what, before the first step."""
    run.write_config(dump_config(experiment.config) + exact_rates(experiment))
    run.write_classes(experiment.index.class_names)
    run.write_split(experiment.index.rows())
    run.write_status("running", 0, resumable=False)


def exact_rates(experiment: Experiment) -> str:
    """Give the peak rate of every group in every stage, as comments below the resolved config."""
    lines = ["", "# Peak learning rate of each layer group:"]
    for stage in experiment.config.stages:
        plans = freeze_and_plan(experiment.config, stage, experiment.model)
        rates = ", ".join("frozen" if plan.lr is None else str(plan.shown_lr) for plan in plans)
        lines.append(f"#   {stage.name}: {rates}")
    return "\n".join(lines) + "\n"


def start_journal(run: Run, experiment: Experiment) -> Journal:
    """Open the record of the training."""
    config = experiment.config
    description = describe_model(
        experiment.model.spec, experiment.index, experiment.limits, config.data.batch_size
    )
    return Journal(run, monitor=config.monitor, description=description)


def run_stages(run: Run, experiment: Experiment, journal: Journal, display: Display) -> None:
    """Train stage by stage; the best model of all of them is in the run directory afterwards."""
    config = experiment.config
    loaders = build_loaders(experiment)
    try:
        for number in range(len(config.stages)):
            experiment = with_found_lr(run, experiment, number, loaders, journal, display)
            stage = experiment.config.stages[number]
            plans = freeze_and_plan(experiment.config, stage, experiment.model)
            show_stage(number, stage, plans, len(config.stages), display)
            journal.start_stage(stage.name, [plan.summary() for plan in plans])
            run_stage(number, experiment, plans, loaders, journal, display)
    finally:
        journal.flush()


def with_found_lr(
    run: Run, experiment: Experiment, number: int, loaders: Loaders, journal: Journal, display: Display
) -> Experiment:
    """Find the rate of a stage that says `lr: auto`, and write down how; give the experiment that has it.

    Raises:
        DivergenceError: no rate that can be answered for.
    """
    config, stage = experiment.config, experiment.config.stages[number]
    if not stage.rate.auto:
        return experiment
    before = f"the model after stage {config.stages[number - 1].name}" if number else starting_weights(config)
    display.say(f"\nfinding the rate of stage {stage.name}, from {before}")
    found = find_lr(experiment, number, loaders, weights=before, display=display)
    run.write_lr_find(stage.name, found.to_dict(), draw_png(curve_plot(found)))
    journal.add_lr_find(stage.name, lr=found.lr, by=found.by, seconds=found.seconds)
    show_found(found, display)
    if found.lr is None:
        raise refusal(found)
    stages = list(config.stages)
    stages[number] = stage.model_copy(update={"lr": stage.rate.peaking_at(found.lr).written})
    experiment = replace(experiment, config=config.model_copy(update={"stages": tuple(stages)}))
    run.write_config(dump_config(experiment.config) + exact_rates(experiment))
    return experiment


def run_stage(
    number: int,
    experiment: Experiment,
    plans: list[GroupPlan],
    loaders: Loaders,
    journal: Journal,
    display: Display,
) -> None:
    """Fit one cycle to the learning parameters of a planned stage."""
    config, stage = experiment.config, experiment.config.stages[number]
    optimizer = build_stage_optimizer(config, plans)
    cycle = config.one_cycle
    moms = momentum_cycle(config, optimizer)
    for note in schedule_notes(config, moms):
        display.say(note)
    images = len(loaders.train) * config.data.batch_size * stage.epochs
    with display.bar(stage.name, images) as bar:
        watch = _Watch(experiment, stage, journal, display, bar)
        fit_one_cycle(
            experiment.model,
            loaders,
            optimizer=optimizer,
            loss=build_loss(config),
            epochs=stage.epochs,
            cycle=OneCycle(cycle.pct_start, cycle.div, cycle.div_final, moms),
            position=Position(config.seed, number),
            hooks=Hooks(step=watch.step, epoch=watch.epoch, val_batch=watch.val_batch),
            clip_norm=config.optimizer.clip_norm,
        )


def schedule_notes(config: Config, moms: tuple[float, float, float] | None) -> list[str]:
    """Say where the schedule of a stage is not the usual one, a moving rate and a moving momentum."""
    name, notes = config.optimizer.name, []
    if moms is None:
        notes.append(f"{name} has no momentum; only the rate follows the cycle")
    elif config.optimizer.momentum is not None:
        notes.append(f"the momentum stays at {config.optimizer.momentum:g}; only the rate follows the cycle")
    if name == "adadelta":
        notes.append("adadelta finds its own rate; lr is a factor on it, and 1 is the usual one")
    return notes


class _Watch:
    """Follow one stage: show it, and write it down."""

    def __init__(
        self, experiment: Experiment, stage: StageConfig, journal: Journal, display: Display, bar: Bar
    ) -> None:
        self._experiment, self._stage, self._journal = experiment, stage, journal
        self._display, self._bar = display, bar
        display.say("   epoch  train loss  val loss  accuracy      time  images/s")

    def step(self, step: Step) -> None:
        self._journal.add_step(self._stage.name, step)
        self._bar.advance_to((step.step + 1) * step.images, f"epoch {step.epoch + 1}  loss {step.loss:.4f}")

    def val_batch(self, done: int, total: int) -> None:
        self._bar.advance_to(None, f"validating, batch {done} of {total}")

    def epoch(self, epoch: Epoch) -> None:
        scores = score(epoch.val_logits, epoch.val_targets, self._experiment.index.class_names)
        row = self._journal.add_epoch(self._stage.name, epoch, scores, self._experiment.model)
        count = f"{row.epoch}/{self._stage.epochs}"
        self._display.say(
            f"{count:>8}  {row.train_loss:>10.4f}  {row.val_loss:>8.4f}  {row.val_accuracy:>8.2%}  "
            f"{duration(row.seconds):>8}  {row.images_per_second:>8.0f}"
            + ("  best" if self._journal.best is row else "")
        )


def show_stage(
    number: int, stage: StageConfig, plans: list[GroupPlan], stages: int, display: Display
) -> None:
    """Print the table of layer groups that stands before each stage."""
    plural = "epoch" if stage.epochs == 1 else "epochs"
    title = f"stage {number + 1} of {stages}: {stage.name}, {stage.epochs} {plural}, lr {stage.rate}"
    display.say("")
    display.table(TABLE_COLUMNS, [plan.row() for plan in plans], title=title)


def write_outcome(
    run: Run, experiment: Experiment, journal: Journal, seconds: float, display: Display
) -> None:
    """Write the report of the best model, and show it."""
    scores = {"val": journal.best_scores}
    if experiment.index.count("test"):
        trained = load_trained(run.directory, experiment.device)
        scores["test"] = evaluate_split(trained, experiment.index, "test", display)
    report = {
        "run_dir": str(run.directory),
        "best": asdict(journal.best),
        "epochs": len(journal.history),
        "seconds": round(seconds, 3),
        "train_images": experiment.index.count("train"),
        "bad_images": [image._asdict() for image in experiment.index.bad],
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
