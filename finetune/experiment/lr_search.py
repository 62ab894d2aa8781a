"""Find the learning rate of a stage: the part of the story that `finetune lr-find` and `lr: auto` share."""

import time
from dataclasses import replace

from finetune.config.config import Config
from finetune.display import Display
from finetune.experiment.build import (
    Experiment,
    build_loss,
    build_stage_optimizer,
    build_val_loader,
    freeze_for_stage,
    plan_groups,
    stage_cycle,
)
from finetune.lr_finder.heuristics import ORDER, Curve, Suggestion, choose, divergence, suggest
from finetune.lr_finder.race import Candidate, line_up, race
from finetune.lr_finder.result import LrFindResult, decide
from finetune.lr_finder.sweep import Range, mean_curve, range_test
from finetune.lr_finder.trial import Trial, no_trace
from finetune.metrics.score import judge
from finetune.training.events import Loaders
from finetune.training.features import compute_features, feature_batches


def find_lr(
    experiment: Experiment, number: int, loaders: Loaders, *, weights: str, display: Display
) -> LrFindResult:
    """Find the peak rate of a stage, from the weights that the model holds now, and leave no trace.

    Args:
        experiment: the experiment.
        number: which of its stages, counted from 0.
        loaders: its loaders; the order of their images is a function of stage and epoch, so nothing moves.
        weights: what the model holds, to be told and recorded.
        display: where to tell how it goes.
    """
    started = time.perf_counter()
    how, stage = experiment.config.lr_finder, experiment.config.stages[number]
    race_steps = min(how.race_steps, stage.epochs * len(loaders.train))
    with no_trace(experiment.model):
        trial = build_trial(experiment, number, loaders, max(how.steps + 1, race_steps), display)
        curves = _sweep(trial, experiment.config, display)
        curve = mean_curve(curves)
        suggestions = suggest(curve)
        racers: list[Candidate] = []
        if how.pick == "race":
            racers = _race(trial, experiment.config, curve, suggestions, race_steps, display)
    lr, by = decide(suggestions, racers, how.pick)
    return LrFindResult(
        stage=stage.name,
        weights=weights,
        pick=how.pick,
        lr=None if lr is None else stage.lr.peaking_at(lr).last,
        by=by,
        suggestions=tuple(suggestions),
        curves=tuple(curves),
        curve=curve,
        racers=tuple(racers),
        race_steps=race_steps,
        seconds=time.perf_counter() - started,
    )


def starting_weights(config: Config) -> str:
    """Say what the model holds before any training."""
    return f"weights {config.model.weights} and a new head"


def build_trial(
    experiment: Experiment, number: int, loaders: Loaders, most_batches: int, display: Display
) -> Trial:
    """Prepare a stage to be trained in miniature, each time for at most `most_batches` steps.

    Under a frozen backbone the features of as many batches, and of the validation images, are computed here
    once: all steps after are the head's alone. No more images are validated on than are trained on.
    """
    val = build_val_loader(experiment, most_batches * experiment.config.data.batch_size)
    trial = stage_trial(experiment, number, Loaders(loaders.train, val, loaders.device))
    only_head = experiment.model.only_head_learns
    return _over_features(experiment, trial, most_batches, display) if only_head else trial


def stage_trial(experiment: Experiment, number: int, loaders: Loaders) -> Trial:
    """Freeze the model as a stage wants it, and prepare to train it in miniature."""
    config, model = experiment.config, experiment.model
    stage = config.stages[number]
    ratios = stage.model_copy(update={"lr": stage.lr.peaking_at(1.0)})
    plans = plan_groups(config, ratios, model)
    freeze_for_stage(stage, model)
    return Trial(
        module=model,
        train=loaders.train,
        val=loaders.val,
        new_optimizer=lambda: build_stage_optimizer(config, plans),
        loss=build_loss(experiment),
        judge=judge,
        device=experiment.device,
        seed=config.seed,
        stage=number,
        clip_norm=config.optimizer.clip_norm,
    )


def _over_features(experiment: Experiment, trial: Trial, most_batches: int, display: Display) -> Trial:
    model, device, data = experiment.model, experiment.device, experiment.config.data
    model.train()  # what is frozen stays in eval mode
    passes = min(len(trial.train), most_batches)
    to_look_at = data.batch_size * passes + min(experiment.index.count("val"), most_batches * data.batch_size)
    with display.bar("features", to_look_at) as bar:
        trial.train.sampler.start_epoch(trial.stage, 0)  # type: ignore[attr-defined]
        train = compute_features(
            model.features, trial.train, device=device, most_batches=passes, progress=bar.advance_by
        )
        val = compute_features(model.features, trial.val, device=device, progress=bar.advance_by)
    batches = feature_batches(train, batch_size=data.batch_size, seed=trial.seed)
    return replace(trial, module=model.head, train=batches, val=[val])


def _sweep(trial: Trial, config: Config, display: Display) -> list[Curve]:
    how, moms = config.lr_finder, stage_cycle(config, trial.new_optimizer()).moms
    sweep = Range(how.start, how.end, how.steps, how.stop, how.smoothing)
    with display.bar("range test", (how.steps + 1) * how.repeats, "steps") as bar:
        return range_test(
            trial,
            sweep,
            repeats=how.repeats,
            momentum=None if moms is None else moms[1],
            tick=lambda: bar.advance_by(1),
        )


def _race(
    trial: Trial,
    config: Config,
    curve: Curve,
    suggestions: list[Suggestion],
    steps: int,
    display: Display,
) -> list[Candidate]:
    entries = line_up(suggestions, choose(suggestions, ORDER[0]), divergence(curve))
    with display.bar("race", steps * (len(entries) + 2), "steps") as bar:  # two in a second round
        cycle = stage_cycle(config, trial.new_optimizer())
        return race(trial, entries, steps=steps, cycle=cycle, tick=lambda: bar.advance_by(1))
