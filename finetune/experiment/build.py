"""Make an experiment out of a config: its data, its model, and what each stage does to the model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from finetune.config.config import Config
from finetune.config.sections import StageConfig
from finetune.data.images import ImageLimits
from finetune.data.index import ImageIndex
from finetune.data.loading.draws import LARGEST
from finetune.data.loading.loaders import fit_batch_size
from finetune.data.loading.share import BatchShare
from finetune.data.loading.workers import choose_workers, most_workers, workers_with_room
from finetune.experiment.capacity import check_augmentation, check_batch
from finetune.experiment.model import build_model
from finetune.experiment.ranks import check_ranks, device_lines, put_on_device
from finetune.experiment.read_data import ImageData, column_kinds, resolve_auto, resolved_monitor
from finetune.experiment.recipe import recipe_lines, step_options
from finetune.machine.cores import usable_cores
from finetune.machine.device import (
    choose_precision,
    describe,
    emulates_bfloat16,
    set_arithmetic,
    unused_gpu,
)
from finetune.machine.ranks import ALONE, Ranks
from finetune.model import ImageClassifier
from finetune.model.download import Say
from finetune.model.layer_groups import statistics_stand_still
from finetune.notes import Note
from finetune.optim.build import build_optimizer, has_momentum
from finetune.optim.param_groups import GroupPlan, RateRule, optimizer_groups, plan_stage, trainable_groups
from finetune.optim.schedule import OneCycle
from finetune.task.balance import balance_line
from finetune.training.averaging import WeightAverage
from finetune.training.early_stopping import EarlyStopping
from finetune.training.events import START, Hooks, Loaders, Reached
from finetune.training.step import TrainingStep


@dataclass(frozen=True)
class Experiment:
    """Everything a training is made of, ready to start."""

    config: Config
    """The resolved config: what was `auto` or too large is decided."""
    device: torch.device
    index: ImageIndex
    limits: ImageLimits
    model: ImageClassifier
    ranks: Ranks = ALONE
    """The processes that train together."""
    notes: tuple[Note, ...] = ()
    """What building it has shown."""


def build_experiment(
    config: Config,
    device: torch.device,
    data: ImageData,
    *,
    say: Say | None = None,
    ranks: Ranks = ALONE,
) -> Experiment:
    """Build the model for data that is there, and decide everything that the config leaves to us.

    Args:
        config: the experiment.
        device: where to compute.
        data: what `read_data` gave.
        say: called at once with a line about the pretrained weights: a download may take minutes.
        ranks: the processes that train together.

    Raises:
        FinetuneError: weights or names that are not as the config says, or more than the memory holds.
    """
    index, asked = data.index, config
    with ranks.local_first():
        model = build_model(config, index, say=say)
    precision = ranks.of_first(choose_precision(config.precision, device))
    model.set_precision(precision)
    set_arithmetic(device, precision, deterministic=config.deterministic)
    images = index.count("train")
    batch_size = fit_batch_size(images, config.data.batch_size)
    check_ranks(ranks, batch_size, compiled=config.compile)
    check_batch(config, model, batch_size, device)
    check_augmentation(config, model, device)
    put_on_device(model, config, ranks, device)
    accumulate = min(config.data.accumulate, images // batch_size)
    size = model.preprocessing.image_size
    columns = config.data.columns.model_copy(update={"metadata": column_kinds(index)})
    update = {"batch_size": batch_size, "accumulate": accumulate, "image_size": size, "columns": columns}
    section = config.data.model_copy(update=update)
    config = resolve_auto(config, index).model_copy(update={"data": section, "precision": precision})
    experiment = Experiment(config, device, index, data.limits, model, ranks)
    return replace(experiment, notes=tuple(_notes(asked, experiment)))


def _notes(asked: Config, experiment: Experiment) -> Iterator[Note]:
    """Return what is worth a line in a log; `asked` is the config as it was given."""
    config, index = experiment.config, experiment.index
    if lowered := lowered_batch(asked, experiment):
        yield Note(lowered, warning=True)
    if config.data.workers != "auto" and config.data.workers > most_workers():
        what = f"data.workers: {config.data.workers} is more than the cores of this machine keep busy"
        yield Note(f"{what}; using {most_workers()}", warning=True)
    if (used := loader_workers(experiment)) < (wanted := _wanted_workers(experiment)):
        what = f"data.workers: shared memory (/dev/shm) has no room for the batches of {wanted}; using {used}"
        more = "Give a container more of it (docker: --shm-size), or lower data.batch_size."
        yield Note(f"{what}\n{more}", warning=True)
    yield from map(Note, device_lines(config, experiment.ranks))
    if config.data.balance != "none":
        weights = balance_weights(config, index)
        yield Note(balance_line(config.data.balance, index.class_names, weights, index.task.weighed))
    if config.device == "auto" and (unused := unused_gpu(experiment.device)):
        yield Note(unused, warning=True)
    if config.precision == "bfloat16" and emulates_bfloat16(experiment.device):
        what = f"precision: {describe(experiment.device)} emulates bfloat16, which is slower than float32"
        yield Note(f"{what}\nprecision=auto takes what the GPU computes in.", warning=True)
    yield from map(Note, recipe_lines(config))
    yield Note(model_line(experiment))


def loader_workers(experiment: Experiment) -> int:
    """Decide how many processes load the images of a training."""
    config = experiment.config
    sizes = [stage.image_size or experiment.model.preprocessing.image_size for stage in config.stages]
    crops = LARGEST if config.data.augment_on == "device" else 1
    batch_bytes = config.data.images_per_step * 3 * max(sizes) ** 2 * crops
    return workers_with_room(_wanted_workers(experiment), batch_bytes)  # as much for all ranks as for one


def _wanted_workers(experiment: Experiment) -> int:
    to_read = 0 if experiment.index.root is None else experiment.index.count("train")  # built-in: in memory
    return choose_workers(
        experiment.config.data.workers,
        to_read,
        device_type=experiment.device.type,
        cores=max(1, usable_cores() // experiment.ranks.local_size),
    )


def lowered_batch(config: Config, experiment: Experiment) -> str:
    """Say that the steps have fewer images than the config asks for; empty where they have not."""
    asked, used, images = config.data, experiment.config.data, experiment.index.count("train")
    if used.batch_size != asked.batch_size:
        few = f"data.batch_size: {asked.batch_size} is more than the {images} training images"
        return f"{few}; using {used.batch_size}{', one batch to a step' if asked.accumulate > 1 else ''}"
    if used.accumulate != asked.accumulate:
        few = f"{asked.accumulate} batches of {used.batch_size} are more than the {images} training images"
        return f"data.accumulate: {few}; using {used.accumulate}"
    return ""


def model_line(experiment: Experiment) -> str:
    """Name the model, how it computes, and where."""
    config = experiment.config
    return (
        f"model   {config.model.arch}, weights {config.model.weights}, {config.data.image_size} px, "
        f"{config.precision}, on {describe(experiment.device)}"
    )


def rate_rule(config: Config) -> RateRule:
    """Take from the config how rates and decay reach the parameters."""
    return RateRule(
        divisor=config.slice.divisor,
        spacing=config.slice.spacing,
        weight_decay=config.optimizer.weight_decay,
        decay_bias_and_norm=config.optimizer.decay_bias_and_norm,
    )


def plan_groups(config: Config, stage: StageConfig, model: ImageClassifier) -> list[GroupPlan]:
    """Return each layer group's part in a stage; the model stays as it is."""
    return plan_stage(
        model.layer_groups,
        trainable=trainable_groups(stage.train, len(model.layer_groups)),
        batch_norm=stage.batch_norm,
        lr=stage.lr,
        rule=rate_rule(config),
    )


def batch_norm_line(config: Config, stage: StageConfig) -> str:
    """Say what batch normalisation does in a stage."""
    if stage.batch_norm == "train":
        return "batch norm: statistics move everywhere, and the norms of frozen groups learn"
    if statistics_stand_still(stage.batch_norm, pretrained=config.model.weights != "none"):
        return "batch norm: the statistics of the backbone stand still"
    return "batch norm: statistics move in the groups that train (random weights)"


def freeze_for_stage(stage: StageConfig, model: ImageClassifier) -> None:
    """Freeze the model for a stage that is about to be trained, or tried: nothing else may freeze it."""
    trainable = trainable_groups(stage.train, len(model.layer_groups))
    model.freeze(trainable, batch_norm=stage.batch_norm)


def build_stage_optimizer(
    config: Config, plans: list[GroupPlan], ranks: Ranks = ALONE
) -> torch.optim.Optimizer:
    """Build the optimizer of a planned stage, of which each of the ranks may hold a part."""
    optimizer, groups = config.optimizer, optimizer_groups(plans)
    return build_optimizer(
        groups, name=optimizer.name, decay=optimizer.decay, settings=optimizer.settings, ranks=ranks
    )


def stage_cycle(config: Config, optimizer: torch.optim.Optimizer) -> OneCycle:
    """Return the schedule of a stage; without a momentum for an optimizer that has none."""
    section, fixed = config.one_cycle, config.optimizer.momentum
    moms = section.moms if fixed is None else (fixed, fixed, fixed)
    return OneCycle(
        section.pct_start, section.div, section.div_final, moms if has_momentum(optimizer) else None
    )


def build_step(
    experiment: Experiment,
    optimizer: torch.optim.Optimizer,
    stage: int,
    *,
    module: nn.Module | None = None,
    share: BatchShare | None = None,
) -> TrainingStep:
    """Prepare the steps of a stage as the config wants them.

    Args:
        experiment: the model and the config.
        optimizer: of what learns.
        stage: its number, from 0.
        module: the model, or a part of it; None for the model.
        share: what this rank loads of each batch; None for all of it.
    """
    return TrainingStep(
        experiment.model if module is None else module,
        optimizer,
        loss=build_loss(experiment),
        seed=experiment.config.seed,
        stage=stage,
        options=step_options(experiment.config, len(experiment.index.class_names), share),
    )


def fit_stage(
    experiment: Experiment,
    step: TrainingStep,
    loaders: Loaders,
    hooks: Hooks,
    *,
    epochs: int,
    reached: Reached = START,
    average: WeightAverage | None = None,
) -> None:
    """Fit one cycle with the config's schedule, from where it was saved if it was.

    Raises:
        DivergenceError: a loss that is negative, or a loss, gradient or weight that is not finite.
    """
    from finetune.training.loop import fit_one_cycle  # seconds of fastai, which many commands do without

    cycle = stage_cycle(experiment.config, step.optimizer)
    fit_one_cycle(step, loaders, epochs=epochs, cycle=cycle, hooks=hooks, reached=reached, average=average)


def early_stopping(config: Config) -> EarlyStopping | None:
    """Take from the config when a stage ends before its last epoch; None for never."""
    section = config.early_stopping
    if section.patience is None:
        return None
    return EarlyStopping(
        metric=section.metric or resolved_monitor(config),
        patience=section.patience,
        min_delta=section.min_delta,
        pct_start=config.one_cycle.pct_start,
    )


def build_loss(experiment: Experiment) -> nn.Module:
    """Build the loss that the config asks for, on the device of the experiment."""
    config, index = experiment.config, experiment.index
    loss = index.task.loss(
        gamma=config.loss.focus,
        label_smoothing=config.loss.label_smoothing,
        weights=balance_weights(config, index) if config.data.balance == "loss" else None,
    )
    return loss.to(experiment.device)


def balance_weights(config: Config, index: ImageIndex) -> list[float]:
    """Return how much an image of each class counts, or one that has it where it may have several."""
    counts = list(index.counts("train").values())
    return index.task.balance_weights(counts, index.count("train"), config.data.balance_beta)
