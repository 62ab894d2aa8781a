"""Read a config from Python values: mappings, lists, numbers and text in place of a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Any

from pydantic import BaseModel

from finetune.config.yaml_reader import AFTER_ALL_LINES, MAX_DEPTH, Document, Mark, Path, shown
from finetune.errors import ConfigError


@dataclass(frozen=True)
class Override:
    """A value in place of that of a config."""

    key: tuple[str, ...]
    """where it goes: ("stages", "frozen", "epochs")"""
    value: object
    source: str
    """what messages call it: `keyword 'stages__frozen__epochs'`"""

    def document(self) -> Document:
        """Return the value as it would stand in a file."""
        return read_values(self.value, self.source, line=AFTER_ALL_LINES)


def read_values(values: object, source: str, *, line: int = 0) -> Document:
    """Return Python values as plain ones, each with the mark that messages about it need.

    Tuples become lists, paths text, NumPy's numbers Python's, and sections of a config mappings of what was
    set in them. What is none of these is left to the check of the whole.

    Args:
        values: what to read; it is copied, not changed.
        source: what messages call it.
        line: where its mistakes are listed among others.

    Raises:
        ConfigError: nested too deeply; values that hold themselves are.
    """
    marks: dict[Path, Mark] = {}

    def plain(value: object, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            raise ConfigError(f"{source}: nested more than {MAX_DEPTH} deep; a config is at most 4 deep")
        if isinstance(value, BaseModel):
            # Without what was not set: some defaults follow from other values, which may be overridden.
            value = value.model_dump(mode="json", exclude_unset=True)
        marks[path] = Mark(source, _written(value), line, None)
        match value:
            case Mapping():
                return {str(key): plain(item, (*path, str(key))) for key, item in value.items()}
            case list() | tuple():
                return [plain(item, (*path, number)) for number, item in enumerate(value)]
            case bool():
                return value
            case Integral():
                return int(value)
            case Real():
                return float(value)
            case PathLike():
                return fspath(value)
            case _:
                return value

    return Document(plain(values, ()), marks)


def _written(value: object) -> str:
    match value:
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return shown(repr(value))
