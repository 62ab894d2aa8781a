"""What to train, by a path: a config file, the data alone, or a run to resume; and into which run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import isdir, isfile
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.choices import (
    ARCHIVE_SUFFIXES,
    FOREIGN_SUFFIXES,
    PACKED_SUFFIXES,
    SPREADSHEET_SUFFIXES,
    TABLE_SUFFIXES,
)
from finetune.errors import ConfigError, DataError, RunError
from finetune.imports import quick_imports
from finetune.machine.quick_imports import quick_torch_imports
from finetune.progress import NewBar, no_bar

if TYPE_CHECKING:  # what a config is made of takes time that `--help` does not have
    from finetune.commands.train.stages import AfterEpoch
    from finetune.config.config import Config
    from finetune.config.python_values import Override


_READ_OR_REFUSED = ARCHIVE_SUFFIXES + PACKED_SUFFIXES + SPREADSHEET_SUFFIXES + tuple(FOREIGN_SUFFIXES)
_CONFIG_LENGTH = 100_000  # characters of a JSON file in which a config names its data


def is_data(path: Path) -> bool:
    """Tell whether a path is a folder, archive or table of images rather than a config file."""
    if isdir(path) or (path.suffix.lower() in _READ_OR_REFUSED and isfile(path)):
        return True
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return False  # without what reads tables, for which errors of a config do not wait
    from finetune.data.table import is_table

    return is_table(path) and not (path.suffix.lower() == ".json" and _is_json_config(path))


def require_data(path: Path) -> None:
    """Make sure that a path is a folder, archive or table of images.

    Raises:
        ConfigError: it is something else, such as a config.
    """
    if not is_data(path):
        raise ConfigError(f"{path}: expected a folder or table of images.\nFor a config: finetune train")


def _is_json_config(path: Path) -> bool:
    """Tell whether a `.json` file is a config, which is YAML as well, rather than a table."""
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if '"data"' in text[:_CONFIG_LENGTH] else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("data"), dict) and "path" in value["data"]


def is_run(path: Path) -> bool:
    """Tell whether a path is a run directory, finished or not."""
    if not isdir(path):
        return False
    with quick_torch_imports():
        from finetune.runs import STARTED  # torch comes with it, which errors of a config do not wait for

    return isfile(path / STARTED)


def read_settings(
    path: Path, overrides: "Sequence[str | Override]" = (), new_bar: NewBar = no_bar
) -> "tuple[Config, str]":
    """Return a checked config, and the name that its run directory is called after.

    Args:
        path: a config file; or a folder or table of images, for the config that `finetune init` writes.
        overrides: values in place of those of the config.
        new_bar: shows that files are listed.

    Raises:
        ConfigError: it does not describe an experiment, or is a run.
        DataError: a folder or table that is no data set.
    """
    with quick_imports():
        from finetune.config.load import load_config, parse_config

    if is_data(path):
        from finetune.commands.init import config_name, default_config  # it loads Pillow and NumPy
        from finetune.data.indexing.find_images import listing_bar

        try:
            with listing_bar(new_bar):
                text = default_config(path, overrides)
        except DataError:
            if not is_run(path):
                raise
            raise ConfigError(
                f"{path} is a run, which has no images.\nName its config, {path / 'config.yaml'}, or images."
            ) from None
        config = parse_config(text, f"the config for {path}", overrides)
        return config, Path(config_name(path)).stem
    return load_config(path, overrides), path.stem


def choose_stage(config: "Config", name: str | None, *, from_run: bool) -> str:
    """Return the name of the stage to sweep: the one named, else the first, or the last from a run's weights.

    Raises:
        ConfigError: no such stage.
    """
    return config.stages[config.find_stage(name, default=-1 if from_run else 0)].name


@dataclass(frozen=True)
class RunOptions:
    """Which run directory a training writes, and what becomes of what is there.

    Raises:
        ConfigError: options that do not go together.
    """

    run_dir: Path | None = None
    """The run directory; None for a new one in `output.dir`, or with `resume` for the newest one there."""
    resume: bool = False
    """Resume the run that is there, if there is one."""
    force: bool = False
    """Resume although the config or the data have changed."""
    overwrite: bool = False
    """Move aside what is there."""
    after_epoch: "AfterEpoch | None" = None
    """Called with the epochs so far and the scores of the last; what it raises ends the training."""

    def __post_init__(self) -> None:
        if self.force and not self.resume:
            raise ConfigError(
                "--force is for --resume: it resumes though the config or the data have changed."
            )
        if self.overwrite and self.resume:
            raise ConfigError("--resume resumes a run, --overwrite moves it aside; leave out one of them.")


def read_training(
    path: Path, overrides: "Sequence[str | Override]", options: RunOptions, new_bar: NewBar = no_bar
) -> "tuple[Config, str, RunOptions]":
    """Return a checked config, the name that its run directory is called after, and where that is.

    Args:
        path: what `read_settings` takes; or a run that is to be resumed, for the config it was given.
        overrides: values in place of those of the config.
        options: what was requested.
        new_bar: shows that files are listed.

    Raises:
        ConfigError: no config, or a run without the options that resume it.
        DataError: a folder or table that is no data set.
        RunError: a folder to resume that is neither a run nor a data set.
    """
    if not is_run(path):
        try:
            return *read_settings(path, overrides, new_bar), options
        except DataError as error:
            if not (options.resume and isdir(path)):
                raise
            raise RunError(f"{path} is neither a run nor a folder of images to train on: {error}") from None
    if options.run_dir is not None:
        raise ConfigError(f"{path} is the run to resume; leave out --run-dir.")
    if not options.resume:
        raise ConfigError(f"{path} is a run; add --resume to resume it, or name a config or images.")
    from finetune.commands.train.resume import config_as_given
    from finetune.runs import open_run

    return config_as_given(open_run(path), overrides), path.stem, replace(options, run_dir=path)
