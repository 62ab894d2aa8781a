"""The command `finetune lr-find`, as a user calls it."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import draw_images, run_finetune, write_small_config
from PIL import Image
from safetensors.torch import load_file

from finetune.commands.lr_find import start_from, with_backbone_of
from finetune.config.load import load_config
from finetune.experiment.build import build_experiment
from finetune.experiment.read_data import read_data
from finetune.lr_finder.heuristics import ORDER
from finetune.optim.learning_rates import LearningRate
from finetune.runs.trained_model import load_trained

# The three classes differ in colour by far more than their noise, so that some rate learns them in six steps
# whatever the processor; and the sweep goes on to its end, where a rate of 10 destroys any model, so that
# there is always something to race.
FAST = ("lr_finder.steps=30", "lr_finder.race_steps=6", "lr_finder.start=1e-5", "lr_finder.stop=1e9")


def lr_find(folder, images, *arguments, overrides=FAST):
    return run_finetune("lr-find", write_small_config(folder, images), *overrides, *arguments)


def test_it_shows_the_curve_the_table_the_race_and_the_rate_and_leaves_no_file(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = write_small_config(tmp_path, images).read_bytes()
    result = lr_find(tmp_path, images)
    assert result.exit_code == 0, result.output
    assert "sweep   stage frozen, from weights builtin:glyphs and a new head" in result.stdout
    for heuristic in ORDER:
        assert f"\n{heuristic} " in result.stdout
    assert "the suggestions differ by a factor of about " in result.stdout
    assert "race, 3 steps each" in result.stdout  # the stage has no more
    assert "random guessing gives 1.0986" in result.stdout
    assert result.stdout.rstrip().splitlines()[-1].startswith("lr: ")
    assert max(map(len, result.stdout.splitlines())) <= 120
    assert os.listdir(tmp_path) == ["small.yaml"]
    assert (tmp_path / "small.yaml").read_bytes() == before


@pytest.fixture(scope="module")
def unfrozen(images, tmp_path_factory):
    """Return the folder of a search that wrote all it can, its answer, and what else it said."""
    folder = tmp_path_factory.mktemp("unfrozen")
    result = lr_find(
        folder, images, "--json", "--stage", "unfrozen", "--write", "--plot", folder / "curve.png"
    )
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout), result.stderr


def test_json_holds_the_documented_keys(unfrozen):
    _, answer, errors = unfrozen
    assert set(answer) == {
        *("written", "stage", "weights", "lr", "pick", "by", "refusal", "suggestions"),
        *("agreement_decades", "divergence", "race_steps", "race", "chance_loss", "curve", "seconds"),
    }
    assert answer["stage"] == "unfrozen"
    assert answer["written"].startswith("slice(")  # slice(1e-4, 1e-2) keeps its form
    first, last = map(float, answer["written"].removeprefix("slice(").removesuffix(")").split(","))
    assert last == answer["lr"]
    assert last / first == pytest.approx(100, rel=0.01)
    for suggestion in answer["suggestions"]:
        assert set(suggestion) == {"heuristic", "lr", "reason", "spread_decades"}
        assert (suggestion["lr"] is None) == bool(suggestion["reason"])
    keys = {"lr", "names", "val_loss", "val_accuracy", "standard_error", "beats_chance", "solved"}
    assert all(set(candidate) == keys for candidate in answer["race"])
    assert answer["chance_loss"] == pytest.approx(math.log(3), rel=1e-5)  # of three classes of one size
    assert set(answer["curve"]) == {"lr", "loss", "smoothed", "repeats"}
    winner = min(answer["race"], key=lambda one: abs(math.log(one["lr"] / answer["lr"])))
    assert answer["by"] == winner["names"]
    assert answer["refusal"] is None
    assert f"(race, won by {' and '.join(answer['by'])})" in errors
    assert answer["weights"] == {
        "initial": "builtin:glyphs",
        "trained_stages": [],
        "untrained_stages": ["frozen"],
        "run": None,
        "stage": None,
        "epoch": None,
    }
    assert "from weights builtin:glyphs and a new head: frozen not trained (--run RUN starts" in errors


def test_the_plot_is_a_picture(unfrozen):
    with Image.open(unfrozen[0] / "curve.png") as picture:
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


def test_write_keeps_the_slice(unfrozen):
    folder, answer, _ = unfrozen
    assert load_config(folder / "small.yaml").stages[1].lr.written == answer["written"]


def test_a_later_stage_can_be_swept_from_a_runs_weights(small_run, images, tmp_path):
    result = lr_find(tmp_path, images, "--run", small_run, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["stage"] == "unfrozen"
    assert answer["weights"]["run"] == str(small_run)
    best = json.loads((small_run / "report.json").read_text())["best"]
    stage, epoch = best["stage"], best["epoch"]
    assert (answer["weights"]["stage"], answer["weights"]["epoch"]) == (stage, epoch)
    assert f"from the best weights of {small_run} (stage {stage}, epoch {epoch})" in result.stderr


def test_the_runs_weights_are_in_the_model_that_is_swept(small_run, images, tmp_path):
    config = load_config(write_small_config(tmp_path, images))
    device = torch.device("cpu")
    experiment = build_experiment(with_backbone_of(config, small_run), device, read_data(config))
    start_from(experiment, load_trained(small_run, device), pretrained="none")
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
    assert (answer["by"], answer["refusal"]) == (["steepest"], None)


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
    reasons = {suggestion["reason"] for suggestion in answer["suggestions"]}
    assert len(reasons) == 1  # said once, and again as the error
    assert f"no heuristic answers: {reasons.pop()}" in result.stderr
    assert "steepest" not in result.stderr


@pytest.fixture(scope="module")
def lookalikes(tmp_path_factory):
    """Return a folder of images that say nothing about their class: they are all the same."""
    root = tmp_path_factory.mktemp("lookalikes")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    for name in ("ant", "bee", "cow"):
        (root / name).mkdir()
        for i in range(12):
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("stage", ["frozen", "unfrozen"])
def test_a_rate_is_refused_where_no_rate_beats_random_guessing(lookalikes, tmp_path, stage):
    """One answer for all images is never better than the best guess, whatever a step does."""
    result = lr_find(tmp_path, lookalikes, "--json", "--write", "--stage", stage)
    assert result.exit_code == 4, result.output
    assert (
        f"error: No usable rate for stage {stage}: no rate in the race beats random guessing, which gives a "
        "validation loss of 1.0986; the lowest is "
    ) in result.stderr
    assert "try more lr_finder.race_steps" in result.stderr
    answer = json.loads(result.stdout)
    assert answer["lr"] is answer["written"] is None
    assert not any(candidate["beats_chance"] for candidate in answer["race"])
    assert [str(one.lr) for one in load_config(tmp_path / "small.yaml").stages] == [
        "0.01",
        "slice(1e-4, 0.01)",
    ]


def test_a_training_whose_rate_is_auto_stops_where_no_rate_beats_random_guessing(lookalikes, tmp_path):
    config, run = write_small_config(tmp_path, lookalikes), tmp_path / "run"
    result = run_finetune("train", config, "--run-dir", run, "stages.frozen.lr=auto", *FAST)
    assert result.exit_code == 4, result.output
    assert "no rate in the race beats random guessing" in result.stderr
    assert json.loads((run / "status.json").read_text())["exit_code"] == 4


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


@pytest.mark.slow
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
            assert process.stdout.readline().startswith("lr-find ")
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


@pytest.mark.slow
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
