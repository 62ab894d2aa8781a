"""What of the recipe a config changes in each training step."""

from finetune.config.config import Config
from finetune.training.step import StepOptions


def step_options(config: Config) -> StepOptions:
    """Take from the config how each step is taken, in a stage, a range test and a race."""
    data = config.data
    return StepOptions(
        clip_norm=config.optimizer.clip_norm,
        batch_size=data.batch_size if data.accumulate > 1 else None,
    )


def recipe_lines(config: Config) -> list[str]:
    """Say which parts of the recipe are on that are off by default, a line each."""
    data, lines = config.data, []
    if data.accumulate > 1:
        lines.append(f"step    {data.accumulate} batches of {data.batch_size}: {data.images_per_step} images")
    return lines
