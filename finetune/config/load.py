"""Load configs: YAML, `key=value` arguments or Python values outside, a checked `Config` inside."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune.config.config import WITH_MARKS, Config
from finetune.config.overrides import apply_override, set_value, source_of
from finetune.config.problems import Mistake, argument_mistake, describe, in_order
from finetune.config.python_values import Override, read_values
from finetune.config.yaml_reader import Document, decode, load_bytes, read_yaml
from finetune.config.yaml_writer import dump_config, write_value
from finetune.errors import ConfigError, InvalidConfigError

__all__ = [
    "config_from_values",
    "dump_config",
    "load_config",
    "parse_config",
    "write_value",
]


def load_config(path: Path, overrides: Sequence[str | Override] = ()) -> Config:
    """Read a config file, apply overrides (`key=value`, or Python values), and check all of it.

    Paths inside the config are relative to the current directory, not to the file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not describe an experiment; in the last
            case its message has one line per mistake.
    """
    return parse_config(decode(load_bytes(path), str(path)), str(path), overrides)


def parse_config(text: str, source: str, overrides: Sequence[str | Override] = ()) -> Config:
    """Check the text of a config; `source` is what messages call it.

    Raises:
        ConfigError: as `load_config`.
    """
    return _check(read_yaml(text, source), overrides)


def config_from_values(
    values: Mapping[str, object] | Config, source: str, overrides: Sequence[str | Override] = ()
) -> Config:
    """Check Python values as the text of a config is checked; `source` is what messages call them.

    Raises:
        ConfigError: as `load_config`.
    """
    return _check(read_values(values, source), overrides)


def _check(document: Document, overrides: Sequence[str | Override]) -> Config:
    if not isinstance(document.value, dict):
        found = "the file is empty" if document.value is None else f"found {document.marks[()].written}"
        place = document.marks[()].place
        raise ConfigError(f"{place}: {found}; a config is a mapping, at the least `data: {{path: FOLDER}}`")
    problems = _apply_all(document, overrides)
    try:
        config = Config.model_validate(document.value, context=WITH_MARKS)
    except ValidationError as error:
        sources = [source_of(override) for override in overrides]
        problems += describe(error, Config, document, sources)
    if problems:
        raise InvalidConfigError(in_order(problems))
    return config


def _apply_all(document: Document, overrides: Sequence[str | Override]) -> list[Mistake]:
    """Apply every override and return the mistakes of those that cannot be."""
    problems = []
    for number, override in enumerate(overrides):
        try:
            if isinstance(override, str):
                apply_override(document, override)
            else:
                set_value(document, override.key, override.document(), override.source)
        except ConfigError as error:
            problems.append(argument_mistake(number, str(error)))
    return problems
