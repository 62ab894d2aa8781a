"""Whole trainings whose ranks divide the weights: what they leave, and how they are stopped and resumed."""

import csv
import json
import os
import shutil
import signal
import time

import pytest
import torch
from rank_process import Rank, Started, free_port
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

CONFIG = """
precision: float32
seed: 1
shard: weights
ema: 0.9
data: {path: "builtin:digits", augment: light, batch_size: 12, images_per_class: 6, image_size: 32}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [16]}}
optimizer: {name: momentum, clip_norm: 1.0}
checkpoint: {every: 3}
lr_finder: {steps: 20, race_steps: 3}
stages:
  - {name: frozen, train: head, epochs: 1, lr: 3e-2}
  - {name: unfrozen, train: all, epochs: 2, lr: 1e-3}
  - {name: late, train: 2, epochs: 1, lr: 1e-4, batch_norm: train}
"""


def start(folder, run, *more, size=2, resume=False):
    arguments = [
        "train",
        "config.yaml",
        "--quiet",
        "--run-dir",
        run,
        *(["--resume"] if resume else []),
        *more,
    ]
    (folder / "config.yaml").write_text(CONFIG)
    return Started([Rank(arguments, folder)] * size, folder, free_port())


def end(*how, **more):
    ended = start(*how, **more).end(120)
    assert [code for code, _ in ended] == [0] * len(ended), ended
    return ended[0][1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("divided")


@pytest.fixture(scope="module")
def whole(folder):
    """Return the run of a training in two processes that nothing stopped."""
    end(folder, "whole")
    return folder / "whole"


def stop(started, run, with_signal):
    """Stop the last rank in the midst of the second stage; return the exit codes and what was said."""
    last = time.monotonic() + 60
    while not list(run.glob("checkpoints/01-*.safetensors")):
        assert time.monotonic() < last
        time.sleep(0.02)
    os.kill(started.processes[-1].pid, with_signal)
    return started.end(120)


def assert_same(one, other, tolerance):
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        if not tolerance:
            assert torch.equal(tensor, second[name]), name
        assert torch.allclose(tensor, second[name], rtol=tolerance, atol=tolerance), name


def history(run):
    with open(run / "history.csv") as file:
        rows = list(csv.DictReader(file))
    return [float(row[name]) for row in rows for name in ("train_loss", "val_loss")]


def test_a_training_with_divided_weights_is_the_training_without(folder, whole):
    end(folder, "undivided", "shard=none")
    end(folder, "alone", size=1)
    for other in ("undivided", "alone"):
        assert history(whole) == pytest.approx(history(folder / other), rel=1e-4)
        assert_same(whole, folder / other, tolerance=5e-3)


def test_a_rate_is_found_with_divided_weights(folder):
    runs = {"found": (), "found-undivided": ("shard=none",)}
    for run, more in runs.items():
        end(
            folder,
            run,
            "stages.unfrozen.lr=auto",
            "stages.unfrozen.epochs=1",
            "optimizer.clip_norm=null",
            *more,
        )
    divided, whole = (json.loads((folder / run / "lr_find-unfrozen.json").read_text()) for run in runs)
    assert divided["curve"]["loss"][:14] == pytest.approx(whole["curve"]["loss"][:14], rel=1e-5)
    assert divided["race"]  # rates at which the last bits soon decide: which wins is not the same
    assert whole["race"]


def test_after_a_kill_a_resume_ends_with_the_same_bits(folder, whole):
    ended = stop(start(folder, "killed"), folder / "killed", signal.SIGKILL)
    assert ended[0][0] == 6, ended
    assert "rank 1 has ended without a word" in ended[0][1]
    assert "Traceback" not in ended[0][1]
    end(folder, "killed", resume=True)
    assert_same(folder / "killed", whole, tolerance=0)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ((2, "weights"), (1, "weights")),
        ((2, "weights"), (2, "none")),
        ((2, "weights"), (3, "weights")),
        ((1, "none"), (2, "weights")),
    ],
)
def test_a_run_is_resumed_with_and_without_divided_weights(folder, whole, before, now):
    run = folder / f"{before}-{now}".replace(" ", "")
    begun = start(folder, run.name, f"shard={before[1]}", size=before[0])
    assert [code for code, _ in stop(begun, run, signal.SIGTERM)] == [75] * before[0]
    said = end(folder, run.name, f"shard={now[1]}", size=now[0], resume=True)
    assert "not be exactly that of an uninterrupted run" in said
    assert history(run) == pytest.approx(history(whole), rel=1e-4)
    assert_same(run, whole, tolerance=5e-3)
    shutil.rmtree(run)
