"""TensorBoard, Weights & Biases and MLflow get what events.jsonl gets: each step once, resumed or not."""

import csv
import importlib.util
import json
import subprocess
import sys
import time

import pytest
from conftest import run_finetune, write_small_config

from finetune.loggers.fan_out import Loggers, open_loggers, require_loggers
from finetune.loggers.records import EventReader

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs the extra tensorboard"
)


def read_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def read_wandb(run):
    from finetune.loggers.wandb import read_history

    found = {}
    for path in sorted((run / "wandb").glob("*run-*/run-*.wandb")):
        for row in read_history(path):
            for name, value in row.items():
                if not name.startswith("_"):
                    found.setdefault(name, []).append((row["_step"], value))
    return found


def read_mlflow(run):
    from mlflow import MlflowClient

    client = MlflowClient()
    (one,) = client.search_runs([client.get_experiment_by_name("finetune").experiment_id])
    names = one.data.metrics
    history = {name: client.get_metric_history(one.info.run_id, name) for name in names}
    return {name: sorted((m.step, m.value) for m in metrics) for name, metrics in history.items()}


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}


def step(number, stage="a", epoch=1):
    return {
        **{"event": "step", "stage": stage, "epoch": epoch, "step": number, "loss": 1 / number},
        **{"lrs": [0.1, 0.1, 0.2, 0.2], "grad_norm": {"body": 1.0, "head": 2.0}, "momentum": 0.9},
        **{"images": 8, "clip": None},
    }


def epoch(number, stage="a"):
    return {"event": "epoch", "stage": stage, "epoch": number, "val_loss": 0.5 / number, "seconds": 1.0}


def test_steps_of_all_stages_are_counted_on():
    reader = EventReader()
    events = [
        *({"event": "first_score", "stage": "a", "val_accuracy": 0.5}, {"event": "stage", "stage": "a"}),
        *(step(1), step(2), epoch(1), {"event": "lr_find", "stage": "b", "lr": 0.01}),
        *(step(1, "b"), step(2, "b"), step(3, "b", 2), epoch(1, "b"), {"event": "early_stop", "stage": "b"}),
    ]
    records = [record for event in events for record in reader.read(event)]
    assert [record.step for record in records] == [0, 1, 2, 2, 2, 3, 4, 5, 4]
    assert records[0].values == {"first_score/val_accuracy": 0.5}
    assert records[1].values == {
        **{"train/loss": 1.0, "train/lr": 0.2, "train/lr/body": 0.1, "train/lr/head": 0.2},
        **{"train/grad_norm/body": 1.0, "train/grad_norm/head": 2.0, "train/momentum": 0.9},
    }
    assert records[3].values == {"epoch/epoch": 1, "epoch/val_loss": 0.5, "epoch/seconds": 1.0}
    assert records[4].values == {"lr_find/lr": 0.01}


def tell(run, *events, state=None, warn=pytest.fail):
    """Do what one process does: open the loggers, tell them events, and end, or be killed."""
    loggers = open_loggers(["tensorboard"], run, {"seed": 42}, warn)
    for event in events:
        loggers.add(event)
    if state is None:
        loggers.flush()
    else:
        loggers.close(state, {"epoch": 1, "val_loss": 0.5})


@needs_tensorboard
def test_a_step_that_is_repeated_is_sent_once_and_one_that_was_torn_off_again(tmp_path):
    tell(tmp_path, *map(step, range(1, 9)), epoch(1))
    (file,) = (tmp_path / "tensorboard").iterdir()
    whole = file.read_bytes()
    # Killed within a write: the last scalars are gone, and one is torn.
    file.write_bytes(whole[: len(whole) * 3 // 4])
    assert 3 < len(read_tensorboard(tmp_path)["train/loss"]) < 8
    restored, repeated = map(step, range(1, 4)), map(step, range(4, 11))
    tell(tmp_path, *restored, *repeated, epoch(1), state="done")
    found = read_tensorboard(tmp_path)
    assert [number for number, _ in found["train/loss"]] == list(range(1, 11))
    for name in ("train/lr", "train/lr/body", "train/momentum", "train/grad_norm/head"):
        assert [number for number, _ in found[name]] == list(range(1, 11)), name
    assert found["epoch/val_loss"] == [(10, 0.5)]
    assert found["best/val_loss"] == [(10, 0.5)]


@needs_tensorboard
def test_one_that_cannot_open_is_left_out_with_one_warning(tmp_path):
    (tmp_path / "tensorboard").write_text("a file in the way")
    warnings = []
    tell(tmp_path, step(1), step(2), epoch(1), state="done", warn=warnings.append)
    (text,) = warnings
    assert text.startswith("tensorboard: ")
    assert "Training goes on without it; events.jsonl holds everything" in text


@needs_tensorboard
def test_one_that_fails_later_is_made_up_for_by_a_resume(tmp_path, monkeypatch):
    warnings = []
    loggers = open_loggers(["tensorboard"], tmp_path, {}, warnings.append)
    loggers.add(step(1))
    loggers.flush()
    with monkeypatch.context() as patch:
        patch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", None)
        loggers.add(step(2))
        loggers.flush()
    loggers.add(step(3))
    loggers.close("failed", {})
    assert len(warnings) == 1
    assert [number for number, _ in read_tensorboard(tmp_path)["train/loss"]] == [1]
    tell(tmp_path, step(1), step(2), step(3), state="done")
    assert [number for number, _ in read_tensorboard(tmp_path)["train/loss"]] == [1, 2, 3]


def test_a_disk_that_is_full_stops_nothing(tmp_path, monkeypatch):
    nowhere = tmp_path / "no" / "x"
    monkeypatch.setattr("finetune.loggers.fan_out.write_json", lambda *_: nowhere.write_text(""))
    warnings = []
    tell(tmp_path, step(1), state="done", warn=warnings.append)
    assert len(warnings) == 1


@needs_tensorboard
def test_one_that_is_named_twice_writes_once_and_all_before_an_end_in_the_first_epoch(tmp_path):
    loggers = open_loggers(["tensorboard", "tensorboard"], tmp_path, {}, pytest.fail)
    for number in (1, 2, 3):
        loggers.add(step(number))
    loggers.close("diverged", {})
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert [number for number, _ in read_tensorboard(tmp_path)["train/loss"]] == [1, 2, 3]


def test_without_loggers_nothing_is_kept(tmp_path):
    loggers = open_loggers([], tmp_path, {}, pytest.fail)
    loggers.add(step(1))
    loggers.close("done", {"epoch": 1})
    assert loggers._waiting == []
    assert list(tmp_path.iterdir()) == []
    assert isinstance(loggers, Loggers)


def test_what_is_not_installed_is_said_before_training_begins(images, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    missing = ("wandb", "mlflow")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name)
    )
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "loggers=[mlflow, wandb]", "--run-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert "loggers: mlflow, wandb are not installed." in result.stderr
    assert "pip install 'finetune-vision[mlflow,wandb]'" in result.stderr
    assert not (tmp_path / "run").exists()
    require_loggers([])


def test_an_unknown_logger_is_refused_with_the_nearest(images, tmp_path):
    result = run_finetune("train", write_small_config(tmp_path, images), "loggers=[tensorbord]")
    assert result.exit_code == 2
    assert "expected one of tensorboard, wandb, mlflow" in result.stderr
    assert "did you mean 'tensorboard'?" in result.stderr


def expected_of(run):
    """Return what a store should have of a run, by its own files."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    ends, number = {}, 0
    for number, event in enumerate(steps, start=1):
        ends[event["stage"], event["epoch"]] = number
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "train/loss": list(enumerate((event["loss"] for event in steps), start=1)),
        "train/lr": list(enumerate((event["lrs"][-1] for event in steps), start=1)),
        "epoch/val_loss": [(ends[r["stage"], int(r["epoch"])], float(r["val_loss"])) for r in rows],
    }


def has_exactly(found, run):
    """Tell whether a store has every step and epoch of a run once, with its numbers."""
    for name, expected in expected_of(run).items():
        assert [number for number, _ in found[name]] == [number for number, _ in expected], name
        values = [value for _, value in expected]
        assert [value for _, value in found[name]] == pytest.approx(values, rel=1e-6), name
    return True


@needs_tensorboard
def test_a_training_is_logged_and_stays_the_same(small_run, images, tmp_path):
    run = tmp_path / "run"
    done = run_finetune(
        "train", write_small_config(tmp_path, images), "loggers=[tensorboard]", "--run-dir", run
    )
    assert done.exit_code == 0, done.output
    assert has_exactly(read_tensorboard(run), run)
    assert (run / "model.safetensors").read_bytes() == (small_run / "model.safetensors").read_bytes()
    assert not (small_run / "loggers.json").exists()


KILLED = """
import os, signal, sys
from finetune.cli import main
from finetune.loggers import fan_out
from finetune.runs.recorder import RunRecorder

fan_out._EVERY, fan_out._SHARE = 0, 1e9
add_step = RunRecorder.add_step

def add_step_and_die(self, stage, step):
    add_step(self, stage, step)
    if stage == "unfrozen" and step.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv.pop(1) == "die":
    RunRecorder.add_step = add_step_and_die
main()
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages about each other
@pytest.mark.parametrize("names", [("tensorboard", "wandb"), ("mlflow",)], ids=",".join)
def test_a_training_that_was_killed_is_logged_once(names, images, tmp_path, monkeypatch):
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs the extras {', '.join(missing)}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    # A checkpoint after two steps of the second stage: the third is done twice.
    train = ["train", config, f"loggers=[{','.join(names)}]", "checkpoint.every=2", "--run-dir", run]

    def process(*arguments):
        command = [sys.executable, "-c", KILLED, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    killed = process("die", *train)
    assert killed.returncode == -9, killed.stderr
    time.sleep(1)  # wandb writes in a process of its own, which outlives the training
    for name in names:
        before = READERS[name](run)
        # The writer of wandb keeps up to 32 KB to itself: whatever is lost of it comes again.
        assert name == "wandb" or len(before["train/loss"]) >= 5, name
        assert not any(key.startswith("best/") for key in before), name
    done = process("live", *train, "--resume")
    assert done.returncode == 0, done.stderr
    assert "Training goes on without it" not in done.stdout + done.stderr
    for name in names:
        assert has_exactly(READERS[name](run), run), name
    assert ("wandb" in names) == (run / "wandb").exists()
