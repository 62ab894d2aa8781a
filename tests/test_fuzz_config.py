"""Thousands of spoiled configs: each is a config or a ConfigError, at once, and never anything else."""

import os
import random
import time

import pytest
import yaml

from finetune.config.config import Config
from finetune.config.keys import all_keys
from finetune.config.load import parse_config
from finetune.config.yaml_writer import dump_config
from finetune.errors import ConfigError

START = """\
# a config that uses most of the grammar
seed: 42
data: {path: "photos", val: 0.2, batch_size: 32, augment: standard, background: "#ffffff"}
model:
  arch: resnet34
  head: {hidden: [512, 64], dropout: [0.25, 0.5, 0.1], pool: avg+max}
optimizer: {name: adam, weight_decay: 1e-2, momentum: null}
slice: {divisor: 3, spacing: geometric}
one_cycle:
  moms:
    - 0.95
    - 0.85
    - 0.95
checkpoint: {every: 10min, keep: 2}
stages:
  - {name: frozen, train: head, epochs: 1, lr: auto}
  - name: unfrozen
    train: all
    epochs: 4
    lr: "slice(1e-5, 1e-3)"
"""

NASTY = (
    *(
        "\0",
        "\t",
        "\ufeff",
        "\ud800",
        "\x1b[31m",
        "é",
        "\u2028",
        "🐜",
        "\r",
        "\n",
        "\n\n",
        " ",
        "#",
        "'",
        '"',
    ),
    *("&a ", "*a", "<<: *a", "&a [*a]", "!!python/object/apply:os.system ['true']", "!!binary aGk=", "!x "),
    *("---\n", "...\n", "{", "}", "[", "]", ",", ":", ": ", "- ", "? ", "| ", "> ", "%YAML 1.1\n", "@", "`"),
    *(
        "null",
        "~",
        "yes",
        "no",
        "on",
        "010",
        "0x1F",
        "1_000",
        "12:30:45",
        "2024-01-01",
        ".nan",
        ".inf",
        "-.inf",
    ),
    *("1e-3", "1e400", "-1e400", "9" * 400, "1" + "0" * 5000, "3.0", "-0", "1.", ".5", "+1", "0o17", "true"),
    *("slice(", "slice(1e-3, 1e-5)", "slice(auto/0)", "auto/1e400", "=", "=1+1", "../..", "~/x", "a" * 300),
    *("[" * 50, "{a: " * 30, "- " * 200, "x: " * 20, "__class__", "data: {path: x}\n", "stages: []\n"),
)


def spoil(text, chance):
    """Change a text in one to four places."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((0, 0, 1, 3, 20)))
        lines = text.split("\n")
        match chance.randrange(6):
            case 0:  # insert, or put in the place of something
                text = text[:start] + chance.choice(NASTY) + text[end:]
            case 1:  # take away
                text = text[:start] + text[end + 1 :]
            case 2:  # flip a bit
                if text and start < len(text):
                    text = text[:start] + chr(ord(text[start]) ^ 1 << chance.randrange(7)) + text[start + 1 :]
            case 3:  # a value becomes another
                words = [word for word in text.split() if word.isalnum()] or ["x"]
                text = text.replace(chance.choice(words), chance.choice(NASTY), 1)
            case 4:  # a line moves, or is there twice
                line = chance.choice(lines)
                lines.insert(chance.randrange(len(lines) + 1), line)
                text = "\n".join(lines)
            case _:  # indentation changes
                number = chance.randrange(len(lines))
                lines[number] = " " * chance.randrange(5) + lines[number].lstrip()
                text = "\n".join(lines)
    return text


def load(text, overrides=()):
    """Return the config, or the message that refuses it; anything else is a bug, and is raised."""
    try:
        return parse_config(text, "spoiled.yaml", overrides)
    except ConfigError as error:
        return str(error)


def fresh_chance(many):
    """Return a source of chance and its seed, fresh for many cases; it is printed for FUZZ_SEED to repeat."""
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(10**9) if many > 1_000 else many))
    print(f"FUZZ_SEED={seed} ({many} cases)")
    return random.Random(seed), seed


@pytest.mark.fuzz
@pytest.mark.parametrize("many", [600, pytest.param(12_000, marks=pytest.mark.slow)])
def test_a_spoiled_config_is_a_config_or_a_config_error(many):
    chance, seed = fresh_chance(many)
    configs = 0
    for number in range(many):
        text = spoil(START, chance)
        about = (seed, number, text)
        started = time.process_time()
        try:
            got = load(text)
        except Exception as error:
            raise AssertionError(about) from error
        assert time.process_time() - started < 5, about
        if isinstance(got, Config):
            configs += 1
            assert load(dump_config(got)) == got, about
        else:
            assert 0 < len(got.strip()) < 20_000, about
            assert all(line.startswith(("spoiled.yaml", "and ")) for line in got.splitlines()), about
    assert many // 50 < configs < many // 2


@pytest.mark.fuzz
@pytest.mark.parametrize("many", [300, pytest.param(3_000, marks=pytest.mark.slow)])
def test_a_spoiled_override_is_a_config_or_a_config_error(many):
    chance, seed = fresh_chance(many)
    keys = (
        "seed",
        "data.batch_size",
        "stages.0.lr",
        "stages.frozen.epochs",
        "model.head",
        "optimizer",
        "x.y",
    )
    for number in range(many):
        argument = spoil(f"{chance.choice(keys)}={chance.choice(NASTY)}", chance)
        try:
            got = load(START, [argument])
        except Exception as error:
            raise AssertionError((seed, number, argument)) from error
        if isinstance(got, Config):
            assert load(dump_config(got)) == got, (seed, number, argument)
        else:
            assert all(line.startswith("argument ") for line in got.splitlines()), (seed, number, argument)


NUMBERS = (
    *(0, 1, -1, 2, 0.5, -0.5, 1e-300, 5e-324, 1e300, 1e39, 1.7e308, -1e300, 0.9999999999999999, 1e-12, 1e12),
    *(2**31 - 1, 2**31, 2**63, 10**17, 65_536, 1_024, 1_000_001, 0.1 + 0.2),
)


@pytest.mark.fuzz
@pytest.mark.parametrize("many", [300, pytest.param(6_000, marks=pytest.mark.slow)])
def test_any_number_in_any_place_is_refused_or_survives_being_written(many):
    chance, seed = fresh_chance(many)
    keys = [key.replace("NAME", "frozen") for key in all_keys(Config)]
    for number in range(many):
        arguments = [f"{chance.choice(keys)}={chance.choice(NUMBERS)!r}" for _ in range(chance.randint(1, 3))]
        about = (seed, number, arguments)
        try:
            got = load(START, arguments)
        except Exception as error:
            raise AssertionError(about) from error
        if isinstance(got, Config):
            assert load(dump_config(got)) == got, about
            numbers = (stage.lr.last for stage in got.stages)
            assert all(1e-12 <= number <= 1e30 for number in numbers), about
            assert got.lr_finder.end >= 10 * got.lr_finder.start, about


def test_the_start_is_a_config():
    assert parse_config(START, "start").stages[1].epochs == 4
    assert yaml.safe_load(START)["optimizer"]["weight_decay"] == "1e-2"  # why there is a reader of our own
