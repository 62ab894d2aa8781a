"""The vocabulary of the config, for editors as JSON schema and for people as Markdown.

Both are generated from the docstrings of the fields: `python -m finetune.config.reference` writes them anew.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.config.config import Config
from finetune.config.data import DataConfig
from finetune.config.docstrings import key_docstrings, sections_by_name
from finetune.config.sections import Section
from finetune.config.values import LARGEST
from finetune.config.yaml_writer import dump_config, write_value
from finetune.optim.update_rules import UPDATE_RULES

SCHEMA_FILE = Path("finetune/config.schema.json")
REFERENCE_FILE = Path("docs/config.md")

_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true`, `false`",
    "string": "text",
    "null": "`null`",
}
_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

_INTRODUCTION = """\
# The config file

Every key that a config can hold, with its default. Only `data.path` is required:

```yaml
data: {path: photos}
```

Any key can be set for one run: `finetune train photos.yaml data.batch_size=32 stages.frozen.lr=1e-3`; a
stage is found by its name, or by its index (`stages.0.lr=1e-3`). Paths are relative to the current directory.
Numbers are decimal (`1e-3`, not `"1e-3"`), switches are `true` or `false`; anchors, tags and several
documents are refused. A config that does not fit this page is refused before anything else happens, with the
line of every mistake.

This page is generated from `finetune/config/` by `python -m finetune.config.reference`.
"""

_OPTIMIZERS = """
## Optimizers

What can stand at `optimizer.name`. w are the weights, g is the gradient, a the rate, b or b1 the momentum, b2
stands for `beta2` and ε for `eps`; m, s and u start from 0. Where weights are decayed, w is multiplied by
1 − a·weight_decay before all this (`decay: decoupled`), or weight_decay·w added to g (`decay: l2`).
"""


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a config file."""
    schema = _tidy(_describe(Config.model_json_schema()))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "finetune config", **schema}


def _describe(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the docstrings of all keys to a schema."""
    sections = sections_by_name(Section)
    for name, definition in [("Config", schema), *schema["$defs"].items()]:
        described = key_docstrings(sections[name]) if name in sections else {}
        for key, text in described.items():
            definition["properties"][key]["description"] = text
    return schema


def schema_text() -> str:
    """Write the JSON schema out, as it stands in the package."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    """Write the reference of all keys as Markdown."""
    schema = json_schema()
    sections = [("Top level", schema), *_sections(schema, schema, "")]
    defaults = dump_config(Config(data=DataConfig(path="photos")))
    tables = "".join(_section_text(title, section) for title, section in sections)
    ending = f"\n## All defaults\n\nWhat the one line above stands for:\n\n```yaml\n{defaults}```\n"
    return _INTRODUCTION + tables + optimizer_table() + ending


def optimizer_table() -> str:
    """Write the optimizers out with what they do and what can be set, as Markdown."""
    rows = [
        f"| `{name}` | {rule.update} | {_assignments(rule.settings.given())} | {rule.source} |\n"
        for name, rule in UPDATE_RULES.items()
    ]
    return f"{_OPTIMIZERS}\n| name | update | settings | source |\n|---|---|---|---|\n{''.join(rows)}"


def _assignments(settings: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}: {write_value(value)}`" for name, value in settings.items()) or "–"


def _tidy(node: Any, *, names: bool = False) -> Any:
    """Drop what says nothing to an editor: made-up titles, and defaults that repeat those of a section.

    `names` tells a mapping from names of keys, of which one may be called `title`, to their schemas.
    """
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _tidy(value, names=key in ("properties", "$defs")) for key, value in node.items()}
    if names:
        return kept
    kept.pop("title", None)
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].split())
    if "{" in json.dumps(kept.get("default")) and kept["default"] != {}:
        del kept["default"]
    return kept


def _sections(schema: dict[str, Any], within: dict[str, Any], above: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the sections below one, each with its dotted name, in the order of the vocabulary."""
    found: list[tuple[str, dict[str, Any]]] = []
    for key, field in within["properties"].items():
        reference = field.get("$ref") or field.get("items", {}).get("$ref")
        if reference:
            section = schema["$defs"][reference.rpartition("/")[2]]
            name = f"{above}{key}" + ("[]" if "items" in field else "")
            found += [(f"`{name}`", section), *_sections(schema, section, f"{name}.")]
    return found


def _section_text(title: str, section: dict[str, Any]) -> str:
    rows = [
        f"| `{key}` | {_kind(field)} | {_default(field, key in section.get('required', ()))} "
        f"| {field['description']} |\n"
        for key, field in section["properties"].items()
        if "$ref" not in field  # a section, with a table of its own
    ]
    head = "| key | value | default | meaning |\n|---|---|---|---|\n"
    return f"\n## {title}\n\n{section['description']}\n\n{head}{''.join(rows)}"


def _default(field: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    return f"`{write_value(field['default'])}`" if "default" in field else "two stages, see the end"


def _kind(field: dict[str, Any]) -> str:
    """Say in a few words what a field takes."""
    if "anyOf" in field:
        return " or ".join(_kind(choice) for choice in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{choice}`" for choice in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        inner = field.get("items") or field["prefixItems"][0]
        return "list of " + ("sections" if "$ref" in inner else _kind(inner))
    if "additionalProperties" in field and "properties" not in field:
        return "`{COLUMN: …}`"
    if field["type"] == "object":
        return "`{" + ", ".join(f"{key}: …" for key in field["properties"]) + "}`"
    if "slice" in field.get("pattern", ""):
        return "`slice(…)`"
    return _KINDS[field["type"]] + _limits(field)


def _limits(field: dict[str, Any]) -> str:
    limits = [
        f"{sign} {field[word]:g}" for word, sign in _SIGNS.items() if field.get(word, LARGEST) < LARGEST
    ]
    return " " + ", ".join(limits) if limits else ""


def main() -> None:
    """Write the schema and the reference into the repository, which must be the current directory."""
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    REFERENCE_FILE.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
