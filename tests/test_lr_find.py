"""The command `finetune lr-find`, as a user calls it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO

import pytest
import torch
from conftest import draw_images, run_finetune, write_small_config
from PIL import Image
from safetensors.torch import load_file

from finetune.commands.lr_find import prepare_from_run
from finetune.config.load import load_config
from finetune.display import Display
from finetune.lr_finder.heuristics import ORDER
from finetune.optim.learning_rates import LearningRate

FAST = ("lr_finder.steps=30", "lr_finder.race_steps=6", "lr_finder.start=1e-5")


def lr_find(folder, images, *arguments, overrides=FAST):
    return run_finetune("lr-find", write_small_config(folder, images), *overrides, *arguments)


def test_it_shows_the_curve_the_table_the_race_and_the_rate(images, tmp_path):
    result = lr_find(tmp_path, images)
    assert result.exit_code == 0, result.output
    assert "sweep   stage frozen, from weights builtin:glyphs and a new head" in result.stdout
    for heuristic in ORDER:
        assert f"\n{heuristic} " in result.stdout
    assert "decades apart" in result.stdout
    assert "race, 3 steps each" in result.stdout  # the stage has no more
    assert result.stdout.rstrip().splitlines()[-1].startswith("lr: ")
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_it_leaves_no_file(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = write_small_config(tmp_path, images).read_bytes()
    assert lr_find(tmp_path, images).exit_code == 0
    assert os.listdir(tmp_path) == ["small.yaml"]
    assert (tmp_path / "small.yaml").read_bytes() == before


def test_json_holds_the_documented_keys(images, tmp_path):
    result = lr_find(tmp_path, images, "--json", "--stage", "unfrozen")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert set(answer) == {
        *("written", "stage", "weights", "lr", "pick", "by", "suggestions", "agreement_decades"),
        *("divergence", "race_steps", "race", "curve", "seconds"),
    }
    assert answer["stage"] == "unfrozen"
    assert answer["written"].startswith("slice(")  # slice(1e-4, 1e-2) keeps its form
    first, last = map(float, answer["written"].removeprefix("slice(").removesuffix(")").split(","))
    assert last == answer["lr"]
    assert last / first == pytest.approx(100, rel=0.01)
    for suggestion in answer["suggestions"]:
        assert set(suggestion) == {"heuristic", "lr", "reason", "spread_decades"}
        assert (suggestion["lr"] is None) == bool(suggestion["reason"])
    for racer in answer["race"]:
        assert set(racer) == {"lr", "names", "val_loss", "val_accuracy", "standard_error"}
    assert set(answer["curve"]) == {"lr", "loss", "smoothed", "repeats"}
    assert "race" in result.stderr
    assert "frozen not trained" in answer["weights"]


def test_the_plot_is_a_picture(images, tmp_path):
    result = lr_find(tmp_path, images, "--plot", tmp_path / "curve.png")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (1000, 600)


@pytest.mark.parametrize(
    ("plot", "message"),
    [("curve.pdf", "name a file that ends in .png"), ("no/curve.png", "there is no folder no")],
)
def test_a_plot_that_cannot_be_written_is_refused_at_once(images, tmp_path, plot, message):
    result = lr_find(tmp_path, images, "--plot", plot)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_write_puts_the_rate_into_the_config_and_nothing_else(images, tmp_path):
    config = write_small_config(tmp_path, images)
    text = config.read_text().replace("lr: 1e-2}", "lr: 1e-2}  # my guess")
    config.write_text(text)
    result = run_finetune("lr-find", config, "--write", "--json", *FAST)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["lr"]
    before, after = text.split("1e-2}  # my guess")
    written = config.read_text()
    assert written.startswith(before)
    assert written.endswith("}  # my guess" + after)
    assert load_config(config).stages[0].lr.written == found


def test_write_keeps_the_slice(images, tmp_path):
    result = lr_find(tmp_path, images, "--write", "--stage", "unfrozen", "--json")
    assert result.exit_code == 0, result.output
    assert load_config(tmp_path / "small.yaml").stages[1].lr.written == json.loads(result.stdout)["written"]


def test_a_later_stage_can_be_swept_from_a_runs_weights(small_run, images, tmp_path):
    result = lr_find(tmp_path, images, "--run", small_run, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["stage"] == "unfrozen"
    assert f"the best weights of {small_run} (stage " in answer["weights"]


def test_the_runs_weights_are_in_the_model_that_is_swept(small_run, images, tmp_path):
    config = load_config(write_small_config(tmp_path, images))
    experiment, _ = prepare_from_run(config, small_run, Display(StringIO()))
    swept, trained = experiment.model.state_dict(), load_file(small_run / "model.safetensors")
    assert swept.keys() == trained.keys()
    assert all(torch.equal(swept[name], trained[name]) for name in trained)


def test_the_run_must_be_of_the_same_classes_and_model(small_run, images, tmp_path):
    result = lr_find(tmp_path, images, "model.head={hidden: [8]}", "--run", small_run)
    assert (result.exit_code, "not the model of the config" in result.stderr) == (5, True), result.output
    other = draw_images(tmp_path / "other", classes=("ant", "bee", "cow"))
    result = lr_find(tmp_path, other, "--run", small_run)
    assert (result.exit_code, "its classes are not those" in result.stderr) == (5, True), result.output
    result = lr_find(tmp_path, images, "--run", tmp_path)
    assert result.exit_code == 8, result.output


def test_a_single_heuristic_can_be_picked_and_needs_no_race(images, tmp_path):
    result = lr_find(tmp_path, images, "lr_finder.pick=steepest", "--json")
    answer = json.loads(result.stdout)
    assert answer["race"] == []
    steepest = next(s for s in answer["suggestions"] if s["heuristic"] == "steepest")
    assert answer["lr"] == pytest.approx(steepest["lr"], rel=0.01)
    assert answer["by"] == "steepest"


def test_repeats_show_how_far_the_sweeps_are_apart(images, tmp_path):
    result = lr_find(tmp_path, images, "lr_finder.pick=steepest", "lr_finder.repeats=3", "--json")
    answer = json.loads(result.stdout)
    assert len(answer["curve"]["repeats"]) == 3
    assert answer["curve"]["repeats"][0] != answer["curve"]["repeats"][1]
    assert all(s["spread_decades"] >= 0 for s in answer["suggestions"] if s["spread_decades"] is not None)
    assert "spread" in result.stderr


FLAT = ("lr_finder.start=1e-12", "lr_finder.end=1e-10", "lr_finder.steps=30")


def test_no_usable_rate_is_an_error_with_the_reasons(images, tmp_path):
    result = lr_find(tmp_path, images, "--json", "--write", overrides=FLAT)
    assert result.exit_code == 4
    assert result.stderr.count("\n") < 60
    assert "error: No usable rate for stage frozen: " in result.stderr
    answer = json.loads(result.stdout)
    assert answer["lr"] is answer["written"] is None
    assert load_config(tmp_path / "small.yaml").stages[0].lr == LearningRate(1e-2)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--stage=nope", "the config has frozen, unfrozen"),
        ("lr_finder.pick=best", "expected one of race, knee"),
        ("lr_finder.end=1e-6", "expected at least ten times lr_finder.start"),
        ("lr_finder.steps=5", "at least 20"),
        ("stages.0.lr=slice(auto/0.1, auto)", "the first rate must not exceed the last"),
        ("stages.0.lr=automatic", "is not a rate; write"),
    ],
)
def test_wrong_words_are_refused(images, tmp_path, argument, message):
    result = lr_find(tmp_path, images, argument)
    assert result.exit_code == 2
    assert message in result.stderr


def test_groups_show_a_rate_that_is_still_to_be_found(images, tmp_path):
    config = write_small_config(tmp_path, images)
    result = run_finetune("groups", config, "stages.unfrozen.lr=slice(auto/100, auto)", "--json")
    assert result.exit_code == 0, result.output
    assert [group["lr"] for group in json.loads(result.stdout)["groups"]] == ["auto/100", "auto/10", "auto"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_search_with_130_and_leaves_nothing(number, images, tmp_path):
    config = write_small_config(tmp_path, images)
    command = [
        sys.executable,
        "-m",
        "finetune",
        "lr-find",
        config,
        "lr_finder.steps=100000",
        "data.workers=1",
    ]
    with subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout.readline().startswith("data ")
            while not process.stdout.readline().startswith("sweep "):
                assert process.poll() is None
            time.sleep(3)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    assert os.listdir(tmp_path) == ["small.yaml"]


def test_lines_fit_a_narrow_terminal(images, tmp_path):
    """Run under a pseudo-terminal of 60 columns, as a person would."""
    if shutil.which("script") is None:
        pytest.skip("needs util-linux's script")
    config = write_small_config(tmp_path, images)
    inner = f"stty cols 60 rows 40; {sys.executable} -m finetune lr-find {config} {' '.join(FAST)}"
    # Python's readline exports the COLUMNS of the terminal that the tests run in; they outrank `stty`.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    result = subprocess.run(
        ["script", "-qec", inner, "/dev/null"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment | {"TERM": "xterm"},
    )
    plot = [line for line in result.stdout.splitlines() if "┤" in line or "│" in line]
    assert max(len(line.rstrip()) for line in plot) <= 60, plot


def test_a_config_without_a_place_for_the_rate_is_refused_before_the_search(images, tmp_path):
    config = tmp_path / "short.yaml"
    config.write_text(f'data: {{path: "{images}"}}\n')
    result = run_finetune("lr-find", config, "--write")
    assert result.exit_code == 2
    assert "it has no stages, so --write has no place for the rate of stage frozen" in result.stderr
    assert result.stdout == ""
