"""The keys of a config, read from its class: what can stand where, and what a name was meant for."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from finetune.config.yaml_reader import Path, shown


def dotted(path: Path, stages: Mapping[int, str] | None = None) -> str:
    """Write a path as users do: ("stages", 1, "lr") is stages.unfrozen.lr, or stages[1].lr without a name."""
    if len(path) > 1 and path[0] == "stages" and isinstance(path[1], int) and path[1] in (stages or {}):
        path = ("stages", (stages or {})[path[1]], *path[2:])
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in path)
    return text.removeprefix(".")


def fields_at(config: type[BaseModel], path: Path) -> dict[str, Any]:
    """Return the fields that can stand at a place of a config."""
    fields: dict[str, Any] = section_at(config, path).model_fields
    return fields


def section_at(config: type[BaseModel], path: Path) -> Any:
    """Return the model whose fields can stand at a place of a config."""
    section: Any = config
    for part in path:
        if isinstance(part, str):
            section = section_of(section.model_fields[part].annotation)
    return section


def section_of(annotation: Any) -> Any:
    """Return the model that a field holds, alone or in a list."""
    return get_args(annotation)[0] if get_origin(annotation) is tuple else annotation


def key_paths(section: type[BaseModel], above: Path = ()) -> Iterator[Path]:
    """Return where every key of a section stands; those of a stage below ("stages", "NAME")."""
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        path = (*above, name)
        yield path
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from key_paths(inner, (*path, "NAME") if inner is not field.annotation else path)


def all_keys(config: type[BaseModel]) -> list[str]:
    """Return every key that holds a value, dotted; those of a stage below `stages.NAME`."""
    paths = list(key_paths(config))
    return [dotted(path) for path in paths if not any(other[:-1] == path for other in paths)]


def keys_called(config: type[BaseModel], name: str) -> list[str]:
    """Return the keys that a name probably means: `epochs`, `batch-size`, `model`, `model.arch`."""
    name, keys = name.lower().replace("-", "_"), all_keys(config)
    last = {key: key.rpartition(".")[2] for key in keys}
    for found in (
        [key for key in keys if name in (key, last[key])],
        [key for key in keys if key.startswith(f"{name}.")][:1],
        [key for key in keys if last[key].startswith(f"{name}_")],
        [key for key in keys if last[key] in get_close_matches(name, last.values(), n=1, cutoff=0.8)],
    ):
        if found:
            return found
    return []
