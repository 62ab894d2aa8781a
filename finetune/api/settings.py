"""What to train, from Python: a config as a file, an object or a dictionary, or the data alone."""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from finetune.commands import settings
from finetune.commands.settings import RunOptions
from finetune.config.config import Config
from finetune.config.load import config_from_values
from finetune.config.overrides import key_parts
from finetune.config.python_values import Override
from finetune.errors import ConfigError

ConfigSource = str | os.PathLike[str] | Mapping[str, object] | Config
"""A YAML file; a folder or table of images, for the config that `finetune init` writes for it; a config as a
dictionary; or a `Config`."""


def read_settings(source: ConfigSource, overrides: list[Override]) -> tuple[Config, str]:
    """Return a checked config, and the name that its run directory is called after.

    Raises:
        ConfigError: it does not describe an experiment.
        DataError: a folder or table that is no data set.
    """
    if isinstance(source, str | os.PathLike):
        return settings.read_settings(Path(source), overrides)
    if not isinstance(source, Mapping | Config):
        raise ConfigError(
            f"expected a path, a dictionary or a finetune.Config to train from, got {type(source).__name__}"
        )
    what = "Config" if isinstance(source, Config) else "config"
    config = config_from_values(source, what, overrides)
    return config, Path(config.data.path.removeprefix("builtin:")).stem or "run"


def read_training(
    source: ConfigSource, overrides: list[Override], options: RunOptions
) -> tuple[Config, str, RunOptions]:
    """Return a checked config, the name that its run directory is called after, and where that is.

    Raises:
        ConfigError: it does not describe an experiment, or is a run without the options that resume it.
        DataError: a folder or table that is no data set.
        RunError: a folder to resume that is neither a run nor a data set.
    """
    if isinstance(source, str | os.PathLike):
        return settings.read_training(Path(source), overrides, options)
    return *read_settings(source, overrides), options


def read_overrides(
    overrides: Mapping[str, object] | None, keywords: Mapping[str, object], *, options: Sequence[str]
) -> list[Override]:
    """Return overrides by dotted key, and by keyword with two underscores for each dot.

    Args:
        overrides: values by dotted key.
        keywords: values by keyword.
        options: the function's own arguments, which a keyword may be a slip for.

    Raises:
        ConfigError: a key that is empty or has an empty part; a keyword that is no key, but nearly an option.
    """
    for keyword in keywords.keys() - Config.model_fields.keys():
        if near := get_close_matches(keyword, options, n=1):
            raise ConfigError(
                f"keyword {keyword!r}: no argument or key of a config; did you mean {near[0]!r}?"
            )
    found = [
        Override(tuple(key_parts(key)), value, f"overrides[{key!r}]")
        for key, value in (overrides or {}).items()
    ]
    found += [Override(tuple(key.split("__")), value, f"keyword {key!r}") for key, value in keywords.items()]
    for override in found:
        if not all(override.key):
            raise ConfigError(
                f"{override.source}: expected a key such as seed, data.batch_size or stages.frozen.epochs; "
                "as a keyword seed, data__batch_size or stages__frozen__epochs"
            )
    return found
