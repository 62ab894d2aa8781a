"""What to train, by a path: a config file, or the data alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what a config is made of takes time that `--help` does not have
    from finetune.config.config import Config
    from finetune.config.python_values import Override


def is_data(path: Path) -> bool:
    """Tell whether a path is a folder or table of images rather than a config file."""
    from finetune.data.table import is_table

    return path.is_dir() or is_table(path)


def is_run(path: Path) -> bool:
    """Tell whether a path is a run directory, finished or not."""
    if not path.is_dir():
        return False
    from finetune.runs import STARTED  # torch comes with it, which errors of a config do not wait for

    return (path / STARTED).is_file()


def read_settings(path: Path, overrides: "Sequence[str | Override]" = ()) -> "tuple[Config, str]":
    """Return a checked config, and the name that its run directory is called after.

    Args:
        path: a config file; or a folder or table of images, for the config that `finetune init` writes.
        overrides: values in place of those of the config.

    Raises:
        ConfigError: it does not describe an experiment.
        DataError: a folder or table that is no data set.
    """
    from finetune.config.load import load_config, parse_config

    if is_data(path):
        from finetune.commands.init import config_name, default_config  # it loads Pillow and NumPy

        config = parse_config(default_config(path), f"the config for {path}", overrides)
        return config, Path(config_name(path)).stem
    return load_config(path, overrides), path.stem


def choose_stage(config: "Config", name: str | None, *, from_run: bool) -> str:
    """Return the name of the stage to sweep: the one named, else the first, or the last from a run's weights.

    Raises:
        ConfigError: no such stage.
    """
    return config.stages[config.find_stage(name, default=-1 if from_run else 0)].name
