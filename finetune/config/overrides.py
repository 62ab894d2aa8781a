"""Apply `key=value` arguments of the command line to the values of a config file."""

import copy
import re
import shlex
from collections.abc import Sequence
from functools import cache
from typing import Any

from finetune.config.config import Config, default_stages
from finetune.config.data import DataConfig
from finetune.config.keys import dotted
from finetune.config.python_values import Override
from finetune.config.sections import StageConfig
from finetune.config.yaml_reader import MAX_DEPTH, Document, Mark, Path, read_yaml, shown
from finetune.errors import ConfigError
from finetune.text import shortened

_INDICATORS = tuple("|>&*!%@`-?:,#")
_SHOWN = 20  # names of stages in a message


@cache
def _defaults() -> dict[str, Any]:
    """Return the values of a config that sets nothing, made only where there is an override."""
    return Config(data=DataConfig(path=".")).model_dump()


def apply_override(document: Document, argument: str) -> None:
    """Set one value in a document, as `seed=1`, `stages.0.lr=1e-3` or `stages.frozen.lr=1e-3` says.

    The value is read as YAML, but for one character alone that begins something in YAML: it is itself, as in
    `data.label_separator=|`. A part of the config that the file leaves out is there with its defaults, so
    `stages.0.epochs=3` works without `stages` in the file. Unknown keys are left to the check of the whole.

    Raises:
        ConfigError: no `key=value`, a value that is not YAML, or a key that leads nowhere.
    """
    source = source_of(argument)
    parts, text = split_argument(argument)
    if re.search("[\ud800-\udfff]", "".join(parts)):
        raise ConfigError(f"{source}: the key holds bytes that are no text")
    if len(parts) > MAX_DEPTH:
        raise ConfigError(f"{source}: a key of {len(parts):,} parts; a config is at most 4 deep")
    written = f"'{text}'" if text in _INDICATORS else text
    set_value(document, parts, read_yaml(written, source, lines=False), source)


def split_argument(argument: str) -> tuple[list[str], str]:
    """Return the parts of the key of an argument `key=value`, and the text of the value.

    Raises:
        ConfigError: it is none; names the argument that `key: value`, as a config has it, was meant for.
    """
    key, equals, text = argument.partition("=")
    parts = key_parts(key)
    if equals and all(parts):
        return parts, text
    key, colon, value = argument.partition(":")
    meant = colon and re.fullmatch(r"[\w.\[\]]+", key) and value.isprintable()
    written = shlex.quote(f"{key}={value.strip() or 'VALUE'}")
    expected = f"write {written}" if meant else "for instance seed=1 or data.batch_size=32"
    raise ConfigError(f"{source_of(argument)}: expected key=value, {expected}")


def source_of(override: str | Override) -> str:
    """Return what messages call an override."""
    return f"argument {shortened(override)!r}" if isinstance(override, str) else override.source


def key_parts(key: str) -> list[str]:
    """Split a dotted key: `stages[0].lr` and `stages.0.lr` are stages, 0, lr."""
    return re.sub(r"\[([^\[\]]*)\]", r".\1", key.strip()).split(".")


def set_value(document: Document, parts: Sequence[str], new: Document, source: str) -> None:
    """Set the value at a key, as `apply_override` does; `source` is what messages call the override.

    Raises:
        ConfigError: the key leads nowhere.
    """
    path: Path = ()
    node: Any = document.value
    default: Any = {**_defaults(), "stages": tuple(stage.model_dump() for stage in unnamed_stages(node))}
    for part in parts[:-1]:
        step = _step(node, part, path, source)
        default = _child(default, step)
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = list(copy.deepcopy(default)) if isinstance(default, tuple) else {}
            document.marks[(*path, step)] = new.marks[()]
        node, path = node[step], (*path, step)
    step = _step(node, parts[-1], path, source)
    node[step] = new.value
    _replace_marks(document.marks, (*path, step), new.marks)


def _step(node: Any, part: str, path: Path, source: str) -> str | int:
    """Return the key or index that one part of the argument's key means in `node`."""
    name = dotted(path)
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise ConfigError(
            f"{source}: {name} holds a single value, so it has no {shown(part)!r}; set {name}= itself"
        )
    if re.fullmatch(r"[0-9]{1,6}", part) and int(part) < len(node):
        return int(part)
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if part in names:
        return names.index(part)
    given = [shown(str(found)) if found else str(index) for index, found in enumerate(names[:_SHOWN])]
    listed = ", ".join(given + ["…"] * (len(names) > _SHOWN)) or "none"
    raise ConfigError(
        f"{source}: {name} has no {shown(part)!r}; it holds {len(node)}, counted from 0: {listed}"
    )


def unnamed_stages(values: object) -> tuple[StageConfig, ...]:
    """Return the stages of a config that names none; they follow the optimizer, as far as it names one."""
    optimizer = values.get("optimizer") if isinstance(values, dict) else None
    return default_stages(optimizer.get("name") if isinstance(optimizer, dict) else None)


def _child(default: Any, step: str | int) -> Any:
    """Go one step down in the defaults; below an item of a list there are none."""
    return default.get(step) if isinstance(default, dict) else None


def _replace_marks(marks: dict[Path, Mark], path: Path, new: dict[Path, Mark]) -> None:
    for old in [mark for mark in marks if mark[: len(path)] == path]:
        del marks[old]
    marks.update({(*path, *below): mark for below, mark in new.items()})
