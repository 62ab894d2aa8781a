"""Training that was stopped or killed, and goes on: bit for bit as if it had not been."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import run_finetune

from finetune.sealed import unseal

# Dropout, augmentation, batch norm that moves, two stages, a validation split, a rate that is found.
CONFIG = """\
precision: float32
data: {{path: "{path}", image_size: 32, batch_size: 8, augment: standard, workers: 0}}
model: {{arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {{hidden: [16]}}}}
checkpoint: {{every: 1, keep: 1000}}
lr_finder: {{steps: 20, race_steps: 4, start: 1e-5}}
stages:
  - {{name: frozen, train: head, epochs: 2, lr: 1e-2}}
  - {{name: unfrozen, train: all, epochs: 2, lr: "slice(auto/100, auto)"}}
"""

TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def config(images, tmp_path_factory):
    file = tmp_path_factory.mktemp("resume") / "small.yaml"
    file.write_text(CONFIG.format(path=images))
    return file


@pytest.fixture(scope="module")
def uninterrupted(config):
    run = config.parent / "uninterrupted"
    result = run_finetune("train", config, "--run-dir", run)
    assert result.exit_code == 0, result.output
    return run


def timeless(value):
    """Give JSON without what is different each time: times, and the name of the directory."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in (*TIMES, "run_dir")}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def result_of(run):
    """Give everything that a run leaves, but for times."""
    with open(run / "history.csv") as file:
        history = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    last = max((run / "checkpoints").glob("*.safetensors"))
    tensors, _ = unseal(last)
    found = run / "lr_find-unfrozen.json"
    return {
        "best weights": (run / "model.safetensors").read_bytes(),
        "model.json": timeless(json.loads((run / "model.json").read_text())),
        "last weights": {name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
        "history": history,
        "events": [timeless(event) for event in events if event["event"] != "resume"],
        "report": timeless(json.loads((run / "report.json").read_text())),
        "config": (run / "config.yaml").read_text(),
        "found": timeless(json.loads(found.read_text())) if found.exists() else None,
    }


def as_if_killed_at(checkpoint, finished, run):
    """Make the directory of a run that was killed some time after it wrote a checkpoint."""
    shutil.copytree(finished, run)
    for path in (run / "checkpoints").glob("*.safetensors"):
        if path.name > checkpoint:
            path.unlink()
    (run / "report.json").unlink()
    status = json.loads((run / "status.json").read_text()) | {"state": "running"}
    (run / "status.json").write_text(json.dumps(status))


def test_from_every_step_on_the_run_ends_as_if_it_had_never_stopped(uninterrupted, tmp_path):
    expected = result_of(uninterrupted)
    names = sorted(os.listdir(uninterrupted / "checkpoints"))
    # 3 steps and 3 ends of training in an epoch, 4 epochs, and one after the rate was found
    assert len(names) >= 4 * 4
    for name in names:
        run = tmp_path / name
        as_if_killed_at(name, uninterrupted, run)
        result = run_finetune("train", "--resume", run)
        assert result.exit_code == 0, result.output
        got = result_of(run)
        for what, value in expected.items():
            assert got[what] == value, (name, what)
