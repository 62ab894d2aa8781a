"""Load and write config files: YAML and `key=value` arguments outside, a checked `Config` inside."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune.config.config import Config
from finetune.config.editor import check_stage_lr, write_stage_lr
from finetune.config.overrides import apply_override
from finetune.config.problems import describe
from finetune.config.yaml_reader import Document, decode, load_bytes, read_yaml
from finetune.config.yaml_writer import dump_config, write_value
from finetune.errors import ConfigError

__all__ = ["check_stage_lr", "dump_config", "load_config", "parse_config", "write_stage_lr", "write_value"]


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, apply `key=value` overrides, and check all of it.

    Paths inside the config are relative to the current directory, not to the file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not describe an experiment; in the last
            case its message has one line per mistake.
    """
    return parse_config(decode(load_bytes(path), str(path)), str(path), overrides)


def parse_config(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """Check the text of a config; `source` is what messages call it.

    Raises:
        ConfigError: as `load_config`.
    """
    document = read_yaml(text, source)
    if not isinstance(document.value, dict):
        found = "the file is empty" if document.value is None else f"found {document.marks[()].written}"
        place = document.marks[()].place
        raise ConfigError(f"{place}: {found}; a config is a mapping, at the least `data: {{path: FOLDER}}`")
    problems = _apply_all(document, overrides)
    try:
        config = Config.model_validate(document.value)
    except ValidationError as error:
        problems += describe(error, document.marks)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _apply_all(document: Document, overrides: Sequence[str]) -> list[str]:
    """Apply every override and give the messages of those that cannot be."""
    problems = []
    for argument in overrides:
        try:
            apply_override(document, argument)
        except ConfigError as error:
            problems.append(str(error))
    return problems
