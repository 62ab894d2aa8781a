"""Whole trainings, through the command line, with real networks and real files."""

import csv
import json
import os
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import draw_images, run_finetune, write_small_config
from safetensors.torch import load_file

from finetune.config.load import load_config
from finetune.model import build_classifier
from finetune.model.spec import HeadSpec, ModelSpec


def train(folder, path, *arguments, name="run"):
    result = run_finetune(
        "train", write_small_config(folder, path), "--run-dir", folder / name, "--json", *arguments
    )
    assert result.exit_code == 0, result.output
    return folder / name, json.loads(result.stdout.splitlines()[-1])


def history(run):
    with open(run / "history.csv") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_exactly_these_files(small_run):
    assert set(os.listdir(small_run)) == {
        *(".lock", "classes.json", "config.yaml", "events.jsonl", "history.csv", "model.json"),
        *("model.safetensors", "report.html", "report.json", "split.csv", "status.json"),
        *("checkpoints", "files.csv", "known.safetensors", "started.json", "digests.json"),
    }


def test_it_learns(small_run):
    report = json.loads((small_run / "report.json").read_text())
    assert report["val"]["accuracy"] == 1.0
    status = json.loads((small_run / "status.json").read_text())
    assert (status["state"], status["stage"], status["step"]) == ("done", "unfrozen", 6)
    assert json.loads((small_run / "classes.json").read_text()) == ["cat", "dog", "owl"]


def test_training_twice_gives_identical_files(images, small_run, tmp_path):
    again, _ = train(tmp_path, images)
    for name in ("model.safetensors", "split.csv", "config.yaml", "classes.json"):
        assert (again / name).read_bytes() == (small_run / name).read_bytes(), name
    strip = [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history(again)
    ]
    assert strip == [{k: row[k] for k in strip[0]} for row in history(small_run)]


def test_fewer_workers_where_shared_memory_is_small_is_said(images, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64_000))
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "data.workers=2", "--dry-run")
    assert result.exit_code == 0, result.output
    text = " ".join((result.stdout + result.stderr).split())
    assert "warning: data.workers: shared memory (/dev/shm) has no room for the batches of 2; using 0" in text


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(images, small_run, tmp_path, workers):
    run, _ = train(tmp_path, images, f"data.workers={workers}")
    assert (run / "model.safetensors").read_bytes() == (small_run / "model.safetensors").read_bytes()


def test_another_seed_gives_another_model(images, small_run, tmp_path):
    run, _ = train(tmp_path, images, "seed=7")
    assert (run / "model.safetensors").read_bytes() != (small_run / "model.safetensors").read_bytes()


def test_the_frozen_stage_leaves_the_backbone_bit_for_bit(images, tmp_path):
    run, _ = train(tmp_path, images, "stages=[{name: frozen, train: head, epochs: 2, lr: 1e-2}]")
    spec = ModelSpec("shufflenet_v2_x0_5", 3, head=HeadSpec(hidden=(16,)), image_size=32)
    pretrained = build_classifier(spec, weights="builtin:glyphs", seed=42).state_dict()
    trained = load_file(run / "model.safetensors")
    backbone = [name for name in pretrained if name.startswith("backbone.")]
    assert len(backbone) > 200
    assert any("running_mean" in name for name in backbone)
    assert all(torch.equal(trained[name], pretrained[name]) for name in backbone)
    assert not torch.equal(trained["head.layers.2.weight"], pretrained["head.layers.2.weight"])


def test_batch_norm_of_frozen_groups_trains_if_asked(images, tmp_path):
    stage = "stages=[{name: frozen, train: head, epochs: 1, lr: 1e-2, batch_norm: train}]"
    run, _ = train(tmp_path, images, stage)
    spec = ModelSpec("shufflenet_v2_x0_5", 3, head=HeadSpec(hidden=(16,)), image_size=32)
    pretrained = build_classifier(spec, weights="builtin:glyphs", seed=42).state_dict()
    trained = load_file(run / "model.safetensors")
    changed = {name for name in pretrained if not torch.equal(trained[name], pretrained[name])}
    assert "backbone.conv1.1.running_mean" in changed
    assert "backbone.conv1.1.weight" in changed
    assert "backbone.conv1.0.weight" not in changed


@pytest.mark.parametrize(
    ("optimizer", "notes", "momentum"),
    [
        (
            "{name: adadelta}",
            "adadelta has no momentum; only the rate follows the cycle\n"
            "adadelta finds its own rate; lr is a factor on it, and 1 is the usual one\n",
            None,
        ),
        (
            "{name: nesterov, momentum: 0.5}",
            "the momentum stays at 0.5; only the rate follows the cycle\n",
            0.5,
        ),
    ],
)
def test_a_schedule_that_moves_no_momentum_says_so(images, tmp_path, optimizer, notes, momentum):
    stages = "stages=[{name: a, train: head, epochs: 1, lr: 1}]"
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    result = run_finetune("train", config, "--run-dir", run, f"optimizer={optimizer}", stages)
    assert result.exit_code == 0, result.output
    assert notes in result.output
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert {event["momentum"] for event in events if event["event"] == "step"} == {momentum}


def test_the_last_line_of_stdout_is_the_outcome(images, tmp_path):
    run, outcome = train(tmp_path, images)
    report = json.loads((run / "report.json").read_text())
    assert set(outcome) == {"run_dir", "val_loss", "val_accuracy", "val_map", "epochs", "seconds"}
    assert outcome["run_dir"] == str(run)
    assert outcome["epochs"] == len(history(run)) == 3
    assert (outcome["val_loss"], outcome["val_accuracy"], outcome["val_map"]) == (
        report["val"]["loss"],
        report["val"]["accuracy"],
        report["val"]["map"],
    )


def test_the_best_epoch_of_all_stages_is_kept(small_run):
    rows = history(small_run)
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    model = json.loads((small_run / "model.json").read_text())
    assert (model["best"]["stage"], str(model["best"]["epoch"])) == (best["stage"], best["epoch"])
    assert repr(model["best"]["val_loss"]) == best["val_loss"]


def test_train_loss_is_the_mean_of_the_epochs_steps(small_run):
    events = [json.loads(line) for line in (small_run / "events.jsonl").read_text().splitlines()]
    for row in history(small_run):
        losses = [
            event["loss"]
            for event in events
            if event["event"] == "step"
            and (event["stage"], str(event["epoch"])) == (row["stage"], row["epoch"])
        ]
        assert len(losses) == 3  # 30 training images in batches of 8
        assert float(row["train_loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-12)


def test_steps_record_the_gradient_norm_of_each_group_that_learns(small_run):
    events = [json.loads(line) for line in (small_run / "events.jsonl").read_text().splitlines()]
    norms = {
        stage: [
            event["grad_norm"] for event in events if event["event"] == "step" and event["stage"] == stage
        ]
        for stage in ("frozen", "unfrozen")
    }
    assert [len(steps) for steps in norms.values()] == [3, 6]
    assert {tuple(step) for step in norms["frozen"]} == {("head",)}
    assert {tuple(step) for step in norms["unfrozen"]} == {("early backbone", "late backbone", "head")}
    assert all(norm > 0 for steps in norms.values() for step in steps for norm in step.values())


def test_rates_and_momentum_follow_the_one_cycle_schedule_of_fastai(small_run):
    from fastai.callback.schedule import combined_cos

    events = [json.loads(line) for line in (small_run / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step" and event["stage"] == "unfrozen"]
    peaks = [1e-4, 1e-4, 1e-3, 1e-3, 1e-2, 1e-2]  # three layer groups, decayed and not
    for event in steps:
        where = (event["step"] - 1) / len(steps)
        expected = [combined_cos(0.25, peak / 25, peak, peak / 1e5)(where) for peak in peaks]
        assert event["lrs"] == pytest.approx(expected, rel=1e-5)
        assert event["momentum"] == pytest.approx(combined_cos(0.25, 0.95, 0.85, 0.95)(where), rel=1e-5)


def test_the_resolved_config_repeats_the_run(small_run, tmp_path):
    resolved = load_config(small_run / "config.yaml")
    assert resolved.data.image_size == 32
    assert "#   unfrozen: 0.0001, 0.001, 0.01" in (small_run / "config.yaml").read_text()
    result = run_finetune("train", small_run / "config.yaml", "--run-dir", tmp_path / "again")
    assert result.exit_code == 0, result.output
    first, again = (folder / "model.safetensors" for folder in (small_run, tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


def test_plain_sgd_keeps_no_momentum(images, tmp_path):
    run, _ = train(tmp_path, images, "optimizer.name=sgd")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert {event["momentum"] for event in events if event["event"] == "step"} == {None}


def test_a_test_folder_is_scored_with_the_best_model(tmp_path):
    for split, each in (("train", 8), ("val", 3), ("test", 4)):
        draw_images(tmp_path / "data" / split, each=each)
    run, _ = train(tmp_path, tmp_path / "data")
    report = json.loads((run / "report.json").read_text())
    assert (report["train_images"], report["val"]["images"], report["test"]["images"]) == (24, 9, 12)
    scores = json.loads(run_finetune("evaluate", run, "--split", "test", "--json").stdout)
    del scores["confidence"]
    assert scores == report["test"]


def test_a_rate_that_explodes_stops_with_its_own_exit_code(images, tmp_path):
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    calm = "{name: calm, train: head, epochs: 1, lr: 1e-2}"
    stages = f"stages=[{calm}, {{name: wild, train: all, epochs: 40, lr: 1e30}}]"
    result = run_finetune("train", config, "--run-dir", run, stages, "optimizer.name=sgd")
    assert result.exit_code == 4
    assert re.search(r"error: The loss is (nan|inf) at epoch 1, step 2, rates [\d.]+e\+28", result.stderr)
    assert "first backbone.conv1.0.weight" in result.stderr
    assert "Try a rate three times lower (stages.1.lr)" in result.stderr
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("diverged", 4)
    assert (status["stage"], status["step"]) == ("wild", 2)
    assert f"error: {status['error']}" == result.stderr.strip()
    assert [row["stage"] for row in history(run)] == ["calm"]
    scores = json.loads(run_finetune("evaluate", run, "--json").stdout)
    assert repr(scores["loss"]) == history(run)[0]["val_loss"]


def test_bad_images_stop_the_run_before_it_leaves_anything(images, tmp_path):
    draw_images(tmp_path / "data")
    (tmp_path / "data" / "cat" / "broken.jpg").write_bytes(b"<html>404</html>")
    config = write_small_config(tmp_path, tmp_path / "data")
    result = run_finetune("train", config, "--run-dir", tmp_path / "run")
    assert result.exit_code == 3
    assert "cat/broken.jpg: looks like HTML" in result.stderr
    assert not (tmp_path / "run").exists()
    skipping = ("data.on_bad_image=skip", "data.max_bad_fraction=0.1")
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", *skipping)
    assert result.exit_code == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [image["name"] for image in report["bad_images"]] == ["cat/broken.jpg"]


def test_fewer_images_than_a_batch_lower_the_batch_size_aloud(images, tmp_path):
    run, _ = train(tmp_path, images, "data.batch_size=64")
    assert load_config(run / "config.yaml").data.batch_size == 30


def test_a_dry_run_downloads_nothing(images, tmp_path, hub_folder):
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "model.weights=default", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "the weights are not on this machine" in result.output
    assert not hub_folder.exists()


def test_a_dry_run_trains_nothing(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_finetune("train", write_small_config(tmp_path, images), "--dry-run")
    assert result.exit_code == 0
    assert "9 steps. Nothing was trained." in result.stdout
    assert os.listdir(tmp_path) == ["small.yaml"]


def test_the_report_page_escapes_what_folders_are_called(tmp_path):
    draw_images(tmp_path / "data", classes=("<script>", "=cmd", "b&b"), each=8)
    run, _ = train(tmp_path, tmp_path / "data")
    page = (run / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
