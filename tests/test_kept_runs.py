"""Runs of earlier versions, kept as they were written: this one uses them, or says what they are of."""

import json

import pytest
from conftest import rewrite, run_finetune
from kept import unpack
from PIL import Image

from finetune.version import VERSION

DRAFTS = {"format-1": 1, "format-2": 2, "format-3-draft": 3}
FIRST = "{name: frozen, train: head, epochs: 2, lr: 1e-2}"
TWO_STAGES = f"stages=[{FIRST}, {{name: more, train: head, epochs: 1, lr: 1e-3}}]"


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (40, 40), "black").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.parametrize(("name", "number"), DRAFTS.items())
def test_a_draft_is_refused_in_two_lines_by_all_that_need_it(name, number, tmp_path, picture):
    run = unpack(name, tmp_path / "run")
    for command in (
        ("evaluate", run),
        ("predict", run, picture),
        ("export", run, "--format", "timm", "--output", tmp_path / "model"),
        ("train", run, "--resume"),
        ("report", run),
    ):
        result = run_finetune(*command)
        assert result.exit_code == 5, result.output
        said = result.stderr.splitlines()[-2:]
        assert said == [
            f"error: {run} is of a draft of finetune 0.1.0 (format {number}), "
            f"which finetune {VERSION} cannot read.",
            f"Train again: finetune train {run / 'config.yaml'}",
        ]
    again = run_finetune("train", run / "config.yaml", "--dry-run")
    assert again.exit_code == 2
    assert again.stderr.endswith("stages.frozen.batch_norm: frozen is called still now\n")


def test_a_run_of_0_1_0_is_used_as_it_was(tmp_path, picture):
    run = unpack("0.1.0", tmp_path / "run")
    assert json.loads((run / "model.json").read_text())["finetune"] == "0.1.0"
    scores = json.loads(run_finetune("evaluate", run, "--json").stdout)
    kept = json.loads((run / "report.json").read_text())["val"]
    assert scores["accuracy"] == pytest.approx(kept["accuracy"], abs=0.01)  # other processors round otherwise
    assert scores["loss"] == pytest.approx(kept["loss"], abs=0.01)
    answers = json.loads(run_finetune("predict", run, picture, "--json").stdout)
    assert set(answers[0]["predictions"][0]) == {"class", "probability"}
    assert run_finetune("report", run).exit_code == 0
    listed = json.loads(run_finetune("runs", tmp_path, "--json").stdout)
    assert [one["state"] for one in listed] == ["done"]


def test_a_run_of_0_1_0_is_resumed_and_says_what_has_changed(tmp_path):
    run = unpack("0.1.0", tmp_path / "run")
    result = run_finetune("train", run, "--resume", TWO_STAGES)
    assert result.exit_code == 0, result.output
    assert f"finetune 0.1.0, now {VERSION}" in result.stdout
    history = (run / "history.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in history[1:]] == [["frozen", "1"], ["frozen", "2"], ["more", "1"]]


def test_a_format_that_is_to_come_is_refused_with_the_version_that_reads_it(tmp_path):
    run = unpack("0.1.0", tmp_path / "run")
    rewrite(run, "model.json", lambda model: model.update(format=99, finetune="7.1"))
    result = run_finetune("evaluate", run)
    assert result.exit_code == 5
    assert result.stderr.splitlines() == [
        f"error: {run / 'model.json'} is of finetune 7.1, "
        f"and in a format that finetune {VERSION} does not know.",
        "Use that version: pip install 'finetune-vision==7.1'",
    ]


@pytest.mark.slow
def test_a_run_of_0_1_0_is_exported(tmp_path):
    run = unpack("0.1.0", tmp_path / "run")
    result = run_finetune("export", run, "--format", "torch", "--output", tmp_path / "model.pt2")
    assert result.exit_code == 0, result.output
