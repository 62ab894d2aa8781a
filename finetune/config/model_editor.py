"""Put a backbone into a config file, and leave the rest as its author wrote it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.config.editor import check_replaceable, replace_text, with_value
from finetune.config.yaml_reader import Document, decode, load_bytes, read_yaml
from finetune.config.yaml_writer import write_value
from finetune.errors import ConfigError


def write_model(path: Path, arch: str, weights: str) -> None:
    """Put an architecture and its weights into `model` of a config file; all else stays byte for byte.

    Weights that are the default are not written where none stand.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has no place for them.
        ResourceError: the file cannot be written; it is as it was.
    """
    raw, source = load_bytes(path), str(path)
    text, expected = _with_model(decode(raw, source), source, arch, weights)
    replace_text(path, raw, text, expected)


def check_model(path: Path) -> None:
    """Make sure that `write_model` can do its work, before minutes are spent on finding a backbone.

    Raises:
        ConfigError: as `write_model`.
        ResourceError: as `write_model`.
    """
    source = str(path)
    _with_model(decode(load_bytes(path), source), source, "timm:any", "builtin:any")
    check_replaceable(path)


def _with_model(text: str, source: str, arch: str, weights: str) -> tuple[str, object]:
    """Return the text of a config with another backbone, and the values that it then has."""
    document = read_yaml(text, source)
    values = document.value if isinstance(document.value, dict) else {}
    section = values.get("model")
    model = section if isinstance(section, dict) else {}
    new = {"arch": arch} | ({"weights": weights} if "weights" in model or weights != "default" else {})
    expected = {**values, "model": {**model, **new}}
    for attempt in _attempts(text, document, new):
        if _comparable(found := _values(attempt)) == _comparable(expected):
            return attempt, found
    raise ConfigError(
        f"{source}: there is no model.arch that --write could replace.\n"
        f"Write it by hand: model: {write_value(new)}"
    )


def _attempts(text: str, document: Document, new: dict[str, str]) -> Iterator[str]:
    """Return texts one of which has the new values, if there is a place for them."""
    marks: dict[Any, Any] = document.marks
    if ("model",) not in marks:
        end = "" if not text or text.endswith("\n") else "\n"
        yield f"{text}{end}model: {write_value(new)}\n"
        return
    spans = {key: marks[("model", key)].span for key in new if ("model", key) in marks}
    if not spans.get("arch") or any(not span or span[0] == span[1] for span in spans.values()):
        return
    written = {key: write_value(value) for key, value in new.items()}
    start = spans["arch"][0]
    line = text[text.rfind("\n", 0, start) + 1 : start]
    indent = line[: len(line) - len(line.lstrip())]
    # What no key stands for yet follows the architecture: in braces, or on a line of its own.
    for between in (", ", f"\n{indent}"):
        added = [f"{key}: {written[key]}" for key in new if key not in spans]
        values = written | {"arch": between.join([written["arch"], *added])}
        result = text
        for key in sorted(spans, key=lambda key: -spans[key][0]):
            result = with_value(result, spans[key], values[key])
        yield result


def _values(text: str) -> object:
    """Return what a text says; None where it is no YAML."""
    try:
        return read_yaml(text, "").value
    except ConfigError:
        return None


def _comparable(values: object) -> str:
    """Write values so that their keys may have any order, NaN equals NaN, and 1 is not 1.0."""
    return json.dumps(values, sort_keys=True)
