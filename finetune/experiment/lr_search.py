"""Find the learning rate of a stage: the part of the story that `finetune lr-find` and `lr: auto` share."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from finetune.config.config import Config
from finetune.data.loading.loaders import ImageLoader
from finetune.errors import DivergenceError
from finetune.experiment.build import (
    Experiment,
    balance_weights,
    build_loss,
    build_stage_optimizer,
    freeze_for_stage,
    plan_groups,
    stage_cycle,
)
from finetune.experiment.features import shown_features, views_have_features
from finetune.experiment.image_features import image_features
from finetune.experiment.loaders import build_val_loader
from finetune.experiment.recipe import step_options
from finetune.lr_finder.heuristics import ORDER, Curve, ceiling, choose, judge_against_chance, suggest
from finetune.lr_finder.race import Entry, League, line_up, run_race
from finetune.lr_finder.result import LrFindResult, StartingWeights, decide
from finetune.lr_finder.sweep import Range, mean_curve, range_test
from finetune.lr_finder.trial import Trial, no_trace
from finetune.progress import NewBar, no_bar
from finetune.training.events import EpochBatches, Loaders
from finetune.training.feature_views import FirstEpoch, FixedView
from finetune.training.features import compute_features
from finetune.training.inference import share_of

_MOST_GUESSED = 10_000  # images; their shares of the classes are those of all, to a percent


def find_lr(
    experiment: Experiment,
    number: int,
    loaders: Loaders,
    *,
    weights: StartingWeights | None = None,
    new_bar: NewBar = no_bar,
) -> LrFindResult:
    """Find the peak rate of a stage, from the weights that the model holds now, and leave no trace.

    `number` is that of the stage, from 0; `weights` says what the model holds, for the record: None is what a
    training begins with.
    """
    started = time.perf_counter()
    how, stage = experiment.config.lr_finder, experiment.config.stages[number]
    race_steps = min(how.race_steps, stage.epochs * len(loaders.train))
    with no_trace(experiment.model):
        trial = build_trial(experiment, number, loaders, max(how.steps + 1, race_steps), new_bar)
        curves = _sweep(trial, experiment.config, new_bar)
        curve = _finite(mean_curve(curves), stage.name, how.start)
        suggestions = suggest(curve, how.pick)
        entries = line_up(suggestions, choose(suggestions, ORDER[0]), ceiling(curve, how.end))
        league = _race(trial, experiment, entries, race_steps, new_bar) if how.pick == "race" else None
        decision = decide(suggestions, league, how.pick)
        if decision.lr is not None and league is None:  # a race compares its candidates with chance by itself
            decision = decision.unless(judge_against_chance(curve, _loss_of_guessing(trial, experiment)))
    return LrFindResult(
        stage=stage.name,
        weights=weights or StartingWeights(experiment.config.model.weights),
        pick=how.pick,
        lr=None if decision.lr is None else stage.lr.peaking_at(decision.lr).last,
        found_by=decision.found_by,
        refusal=decision.refusal,
        suggestions=tuple(suggestions),
        curves=tuple(curves),
        curve=curve,
        league=league,
        race_steps=race_steps,
        seconds=time.perf_counter() - started,
    )


def _finite(curve: Curve, stage: str, start: float) -> Curve:
    """Return a curve that has points.

    Raises:
        DivergenceError: not even the lowest rate leaves a loss that is a number.
    """
    if len(curve.lrs) < 2:
        raise DivergenceError(
            f"No usable rate for stage {stage}: the loss is not finite after the first steps of the range "
            f"test, at {start:g}.\nSet lr_finder.start lower, or write a rate."
        )
    return curve


def guess_of(experiment: Experiment) -> Tensor:
    """Return the logits (C,) that a training of the experiment leads to if images say nothing."""
    config, index = experiment.config, experiment.index
    return index.task.guess(
        list(index.counts("train").values()),
        index.count("train"),
        weights=None if config.data.balance == "none" else balance_weights(config, index),
        label_smoothing=config.loss.label_smoothing,
        focal=config.loss.focus > 0,
    )


def _loss_of_guessing(trial: Trial, experiment: Experiment) -> float:
    """Return what the loss of the training is where every image gets the same logits."""
    guess, index = guess_of(experiment), experiment.index
    samples = index.thinned("train", _MOST_GUESSED).of_split("train")
    targets = torch.tensor([index.target(sample) for sample in samples])
    logits = guess.expand(len(samples), -1).to(trial.device)
    return float(trial.loss(logits, targets.to(trial.device)))


def build_trial(
    experiment: Experiment, number: int, loaders: Loaders, most_batches: int, new_bar: NewBar = no_bar
) -> Trial:
    """Prepare a stage to be trained in miniature, each time for at most `most_batches` steps.

    Under a frozen backbone the features of as many batches, and of the validation images, are computed here
    once: all steps after are the head's alone. Not where images are mixed: the features of a mixture are no
    mixture of features. No more images are validated on than are trained on.
    """
    most_images = most_batches * experiment.config.data.images_per_step
    few = experiment.index.count("val") <= most_images
    val = loaders.val if few else build_val_loader(experiment, most_images)
    trial = stage_trial(experiment, number, Loaders(loaders.train, val, loaders.device))
    if not views_have_features(experiment, experiment.config.stages[number]):
        return trial
    return head_trial(experiment, trial, most_batches, new_bar)


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
        new_optimizer=lambda: build_stage_optimizer(config, plans, experiment.ranks),
        loss=build_loss(experiment),
        judge=experiment.index.task.judge,
        device=experiment.device,
        seed=config.seed,
        stage=number,
        options=step_options(config, len(experiment.index.class_names), share_of(loaders.train)),
    )


def head_trial(experiment: Experiment, trial: Trial, most_batches: int, new_bar: NewBar = no_bar) -> Trial:
    """Return the trial of the head alone, over the features that a frozen backbone gives of its batches."""
    data, device = experiment.config.data, experiment.device
    passes = min(len(trial.train), most_batches)
    val = trial.val
    if isinstance(val, ImageLoader):
        index = experiment.index.thinned("val", most_batches * data.images_per_step)
        val = [image_features(replace(experiment, index=index), "val", new_bar).parts]
    return replace(
        trial,
        module=experiment.model.head,
        train=_first_epoch(experiment, trial, passes, new_bar),
        val=[compute_features(experiment.model.features, val, device=device)],
        options=replace(trial.options, share=None),  # each rank has all features
    )


def _first_epoch(experiment: Experiment, trial: Trial, passes: int, new_bar: NewBar) -> EpochBatches:
    """Return what loads the features of a stage's epochs, of its first epoch's views where views change."""
    if isinstance(trial.train, FixedView):
        return trial.train
    model, stage = experiment.model, experiment.config.stages[trial.stage]
    sampler, batch_size = trial.train.sampler, experiment.config.data.images_per_step
    of_images = isinstance(trial.train, ImageLoader) and stage.views == "eval"
    if of_images and passes == len(trial.train):  # later epochs show what the first leaves out
        everything = range(experiment.index.count("train"))
        features = shown_features(experiment, stage, everything, new_bar)
        return FixedView(sampler, features, batch_size=batch_size)
    shown = sampler.keys(trial.stage, 0)[: passes * batch_size]
    positions = [key.position for key in shown]
    if of_images:
        features = shown_features(experiment, stage, positions, new_bar)
    else:
        model.train()  # what is frozen stays in eval mode
        with new_bar("features", len(shown)) as bar:
            sampler.start_epoch(trial.stage, 0)
            features = compute_features(
                model.features,
                trial.train,
                device=experiment.device,
                most_batches=passes,
                progress=bar.advance_by,
            )
        if (share := share_of(trial.train)) is not None:
            features = tuple(map(share.gather, features))
    return FirstEpoch(sampler, features, positions, batch_size=batch_size)


def _sweep(trial: Trial, config: Config, new_bar: NewBar) -> list[Curve]:
    how, moms = config.lr_finder, stage_cycle(config, trial.new_optimizer()).moms
    sweep = Range(how.start, how.end, how.steps, how.stop, how.smoothing)
    with new_bar("range test", (how.steps + 1) * how.repeats, "steps") as bar:
        return range_test(
            trial,
            sweep,
            repeats=how.repeats,
            momentum=None if moms is None else moms[1],
            tick=lambda: bar.advance_by(1),
        )


def _race(
    trial: Trial, experiment: Experiment, entries: Sequence[Entry], steps: int, new_bar: NewBar
) -> League:
    cycle, guess = stage_cycle(experiment.config, trial.new_optimizer()), guess_of(experiment)
    with new_bar("race", steps * (len(entries) + 2), "steps") as bar:  # two in a second round
        return run_race(trial, entries, steps=steps, cycle=cycle, guess=guess, tick=lambda: bar.advance_by(1))
