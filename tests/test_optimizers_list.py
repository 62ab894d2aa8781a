"""The command `finetune optimizers`, as a user calls it."""

import json

import pytest
from conftest import run_finetune
from PIL import Image
from test_cli import shell

from finetune.commands.optimizers.race import FAMILIES, MOST_STEPS
from finetune.optim.update_rules import UPDATE_RULES


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """Run the race once, with its picture: enough steps for all to leave the saddle."""
    picture = tmp_path_factory.mktemp("race") / "paths.png"
    result = run_finetune("optimizers", "--race", "--steps", 100, "--json", "--plot", picture)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), picture, result.stderr


@pytest.mark.parametrize("width", ["60", "200"])
def test_every_optimizer_is_listed_with_its_update_settings_and_source(width):
    result = shell("optimizers", width=width)
    assert result.returncode == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    for name, rule in UPDATE_RULES.items():
        place = next(i for i, line in enumerate(lines) if line.split()[:1] == [name])
        assert lines[place] == f"{name:<10} {rule.update}"
        assert lines[place + 1].endswith(f"({rule.source})")
        assert all(setting in lines[place + 1] for setting in rule.settings.given())


def test_the_list_as_json_holds_the_documented_keys():
    listed = json.loads(run_finetune("optimizers", "--json").stdout)
    assert [optimizer["name"] for optimizer in listed] == list(UPDATE_RULES)
    for optimizer in listed:
        assert set(optimizer) == {"name", "update", "source", "settings", "decays"}
    adam = listed[list(UPDATE_RULES).index("adam")]
    assert adam["settings"] == {"momentum": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert adam["decays"] == ["decoupled", "l2"]


def test_the_race_as_json_holds_the_documented_keys(raced):
    result, _, _ = raced
    assert set(result) == {"steps", "rates", "functions"}
    assert result["steps"] == 100
    assert [function["name"] for function in result["functions"]] == ["saddle", "ravine"]
    for function in result["functions"]:
        assert set(function) == {"name", "formula", "start", "floors", "below", "paths"}
        assert [path["optimizer"] for path in function["paths"]] == list(UPDATE_RULES)
        for path in function["paths"]:
            assert set(path) == {"optimizer", "lr", "steps", "points"}
            assert path["lr"] in result["rates"]
            assert path["points"][0] == function["start"]
            assert len(path["points"]) == 1 + (path["steps"] or 100)


def test_the_picture_has_its_size(raced):
    _, picture, messages = raced
    with Image.open(picture) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (1600, 1000))
    assert str(picture) in messages


def test_every_optimizer_but_adams_twin_has_a_hue():
    members = [name for names in FAMILIES.values() for name in names]
    assert sorted([*members, "adamw"]) == sorted(UPDATE_RULES)


def test_the_race_is_a_table_from_the_fastest_to_the_slowest_and_says_how_rates_are_chosen():
    result = run_finetune("optimizers", "--race", "--steps", 30)
    assert result.exit_code == 0, result.output
    assert "the fewest steps" in result.stdout
    assert "v²/2 − u²/40 + u⁴/80" in result.stdout
    rows = [
        line.split()
        for line in result.stdout.splitlines()
        if line.split()[:1] and line.split()[0] in UPDATE_RULES
    ]
    assert sorted(row[0] for row in rows) == sorted(UPDATE_RULES)
    assert rows[-1][0] in ("sgd", "momentum", "nesterov", "lion", "lamb", "ranger", "radam", "adadelta")
    steps = [int(row[1]) for row in rows if row[1] != "not"]
    assert steps == sorted(steps)
    assert 1 <= len(steps) < len(rows)
    (sgd,) = (row for row in rows if row[0] == "sgd")
    assert sgd[1:4] == ["not", "in", "30"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--plot", "paths.png"], "--plot is about the race"),
        (["--steps", "10"], "--steps is about the race"),
        (["--race", "--steps", "0"], f"--steps 0: expected a whole number from 1 to {MOST_STEPS}"),
        (["--race", "--steps", "-5"], "--steps -5: expected"),
        (["--race", "--steps", MOST_STEPS + 1], "expected a whole number"),
        (["--race", "--plot", "paths.jpg"], "ends in .png"),
        (["--race", "--plot", "nowhere/paths.png"], "there is no folder nowhere"),
    ],
)
def test_wrong_arguments_are_refused_in_two_lines_before_the_race(arguments, problem):
    result = run_finetune("optimizers", *arguments)
    assert result.exit_code == 2
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert not result.stdout


def test_the_help_says_what_the_race_is():
    text = " ".join(run_finetune("optimizers", "--help").stdout.split())
    for words in (
        "with rules and settings",
        "--race",
        "a saddle and in a ravine",
        "--steps N",
        "--plot FILE",
    ):
        assert words in text
