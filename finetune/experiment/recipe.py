"""What of the recipe a config changes in each training step."""

from finetune.config.config import Config
from finetune.training.mix import Mix
from finetune.training.step import StepOptions


def step_options(config: Config, classes: int) -> StepOptions:
    """Take from the config how each step is taken, in a stage, a range test and a race."""
    data = config.data
    return StepOptions(
        clip_norm=config.optimizer.clip_norm,
        batch_size=data.batch_size if data.accumulate > 1 else None,
        mix=build_mix(config, classes),
    )


def build_mix(config: Config, classes: int) -> Mix | None:
    """Take from the config how images are mixed; None where they are not."""
    data = config.data
    return Mix(mixup=data.mixup or 0, cutmix=data.cutmix or 0, classes=classes) if data.mixes else None


def recipe_lines(config: Config) -> list[str]:
    """Say which parts of the recipe are on that are off by default, a line each."""
    data, lines = config.data, []
    if data.accumulate > 1:
        lines.append(f"step    {data.accumulate} batches of {data.batch_size}: {data.images_per_step} images")
    if data.mixes:
        ways = [f"{name} {alpha:g}" for name in ("mixup", "cutmix") if (alpha := getattr(data, name))]
        both = ", one of them for each batch" if len(ways) > 1 else ""
        lines.append(f"mix     {' or '.join(ways)}{both}")
    return lines
