"""What of the recipe a config changes in each training step."""

from finetune.config.config import Config
from finetune.data.loading.share import BatchShare
from finetune.training.averaging import WeightAverage
from finetune.training.mix import Mix
from finetune.training.step import StepOptions, TrainingStep


def step_options(config: Config, classes: int, share: BatchShare | None = None) -> StepOptions:
    """Take from the config how each step is taken, in a stage, a range test and a race.

    `share` is what this rank loads of each batch; None for all of it.
    """
    data = config.data
    return StepOptions(
        clip_norm=config.optimizer.clip_norm,
        batch_size=data.batch_size if data.accumulate > 1 else None,
        mix=build_mix(config, classes),
        share=share,
        compiled=config.compile,
    )


def build_mix(config: Config, classes: int) -> Mix | None:
    """Take from the config how images are mixed; None where they are not."""
    data = config.data
    return Mix(mixup=data.mixup or 0, cutmix=data.cutmix or 0, classes=classes) if data.mixes else None


def build_average(config: Config, step: TrainingStep) -> WeightAverage | None:
    """Begin the average of what a stage trains; None where the config has none."""
    return None if config.ema is None else WeightAverage(step.tensors.moving, config.ema)


def recipe_lines(config: Config) -> list[str]:
    """Say which parts of the recipe are on that are off by default, a line each."""
    data, lines = config.data, []
    if data.accumulate > 1:
        lines.append(f"step    {data.accumulate} batches of {data.batch_size}: {data.images_per_step} images")
    if data.mixes:
        ways = [f"{name} {alpha:g}" for name in ("mixup", "cutmix") if (alpha := getattr(data, name))]
        both = ", one of them for each batch" if len(ways) > 1 else ""
        lines.append(f"mix     {' or '.join(ways)}{both}")
    if config.ema is not None:
        lines.append(f"ema     averaged weights are validated and kept, decay {config.ema:g}")
    if config.compile:
        lines.append("compile torch compiles the network at the first step of a stage, which takes minutes")
    return lines
