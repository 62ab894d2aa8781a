"""The configs that ship, the schema that editors read, and the reference that people read."""

import json
from pathlib import Path

import pytest

from finetune.config.config import Config
from finetune.config.load import load_config, parse_config
from finetune.config.reference import REFERENCE_FILE, SCHEMA_FILE, json_schema, reference, schema_text
from finetune.config.yaml_writer import dump_config

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def test_there_is_a_config_for_each_common_case():
    assert {path.stem for path in CONFIGS} >= {
        "quickstart",
        "few_images",
        "photographs",
        "linear_probe",
        "gradual_unfreezing",
        "metadata",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_loads_and_says_how_to_run_it(path: Path):
    config = load_config(path)
    text = path.read_text(encoding="utf-8")
    assert f"finetune train configs/{path.name}" in text
    assert parse_config(dump_config(config), "dumped") == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_names_its_schema(path: Path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    name = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / name).resolve() == (ROOT / SCHEMA_FILE).resolve()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_overrides_that_a_header_shows_work(path: Path):
    commands = [line for line in path.read_text(encoding="utf-8").splitlines() if "finetune train " in line]
    for command in commands:
        words = command.partition("finetune train ")[2].partition("#")[0].split()
        load_config(path, words[1:])


def test_the_schema_file_is_current():
    assert (ROOT / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text(), (
        "run python -m finetune.config.reference"
    )


def test_the_reference_is_current():
    assert (ROOT / REFERENCE_FILE).read_text(encoding="utf-8") == reference(), (
        "run python -m finetune.config.reference"
    )


def test_the_reference_names_every_key():
    text = reference()
    for definition in [json_schema(), *json_schema()["$defs"].values()]:
        for key, field in definition["properties"].items():
            assert f"| `{key}` |" in text or f"`{key}`\n" in text or f".{key}`\n" in text, key
            assert "$ref" in field or field["description"] in text


def test_the_schema_refuses_unknown_keys_and_knows_the_forms_of_a_rate():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["data"]
    assert all(section["additionalProperties"] is False for section in [schema, *schema["$defs"].values()])
    number, auto, text = schema["$defs"]["StageConfig"]["properties"]["lr"]["anyOf"]
    assert number == {"type": "number", "exclusiveMinimum": 0}
    assert auto == {"const": "auto"}
    assert text["pattern"].startswith(r"^\s*slice")
    assert schema["properties"]["stages"]["minItems"] == 1


def test_the_schema_has_no_noise():
    def nodes(node: object) -> list[object]:
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        return [node, *(found for child in children for found in nodes(child))]

    found = [node for node in nodes(json_schema()) if isinstance(node, dict)]
    assert len(found) > 50
    assert {node["title"] for node in found if isinstance(node.get("title"), str)} == {"finetune config"}
    assert not any("{" in json.dumps(node.get("default", 0)).replace("{}", "") for node in found)
    assert set(json_schema()["properties"]) == set(Config.model_fields)
