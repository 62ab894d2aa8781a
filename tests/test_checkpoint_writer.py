"""Checkpoints that are written in a thread, as for a training on a GPU; here the CPU trains meanwhile."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import run_finetune, write_small_config
from run_result import result_of

from finetune.errors import ResourceError
from finetune.runs.checkpoint_writer import CheckpointWriter, HostCopy, writes_in_thread
from finetune.runs.checkpoints import CheckpointFolder, Stored
from finetune.training.step import TrainingStep

STAGES = "stages=[{name: all, train: all, epochs: 3, lr: 1e-3}]"
EACH_STEP = ("checkpoint.every=1", "checkpoint.keep=100")
IN_THREAD = """
import os, signal, sys
import finetune.commands.train.train as train
from finetune.runs import checkpoints
train.writes_in_thread = lambda device: True
{}
from finetune.__main__ import main
main()
"""
KILLED_IN_THE_FIFTH = """
write, written = checkpoints.write_bytes, []
def killed(path, content):
    written.append(path)
    if len(written) == 5:
        path.with_name(f".{path.name}.tmp").write_bytes(content[:1000])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
checkpoints.write_bytes = killed
"""


@pytest.fixture
def in_thread(monkeypatch):
    monkeypatch.setattr("finetune.commands.train.train.writes_in_thread", lambda device: True)


@pytest.fixture
def config(images, tmp_path):
    return write_small_config(tmp_path, images)


@pytest.fixture
def alone(config, tmp_path):
    """Return what a training leaves that was never stopped, and wrote its checkpoints itself."""
    assert run_finetune("train", config, STAGES, *EACH_STEP, "--run-dir", tmp_path / "alone").exit_code == 0
    return result_of(tmp_path / "alone")


def test_a_cpu_hashes_in_place_of_training_and_a_gpu_beside_it():
    assert not writes_in_thread(torch.device("cpu"))
    assert writes_in_thread(torch.device("cuda"))


def test_a_copy_holds_the_values_of_its_moment_in_one_block():
    tensors = {
        "layout": torch.randn(3, 4, 5, 6).contiguous(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
        "half": torch.randn(5).bfloat16(),
        "odd": torch.tensor([True, False, True]),
        "double": torch.randn(9, dtype=torch.float64),
    }
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    copy = HostCopy()
    copied = copy.of(tensors)
    for tensor in tensors.values():
        tensor.zero_()
    assert list(copied) == list(before)
    for name, tensor in copied.items():
        assert tensor.is_contiguous()
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    assert len({tensor.untyped_storage().data_ptr() for tensor in copied.values()}) == 1
    again = copy.of({"smaller": torch.ones(2)})["smaller"]
    assert again.untyped_storage().data_ptr() == copied["count"].untyped_storage().data_ptr()


def test_what_keeps_a_checkpoint_from_the_disk_is_told_when_it_is_waited_for(tmp_path, monkeypatch):
    def full(path, content):
        raise ResourceError("No space left on device.")

    monkeypatch.setattr("finetune.runs.checkpoints.write_bytes", full)
    writer = CheckpointWriter(CheckpointFolder(tmp_path), keep=1)
    writer.start(Stored("one", {"w": torch.ones(1)}, {}))
    with pytest.raises(ResourceError, match="No space left"):
        writer.finish()
    assert writer.finish() is None
    writer.close()


def test_a_training_goes_on_while_it_is_saved(config, in_thread, monkeypatch, tmp_path):
    steps, waited = threading.Semaphore(0), []
    step, save = TrainingStep.__call__, CheckpointFolder.save

    def counted(self, *values, **named):
        steps.release()
        return step(self, *values, **named)

    def slow(self, checkpoint, *, keep):
        if not waited:
            while steps.acquire(blocking=False):
                pass
            waited.append(steps.acquire(timeout=60) and steps.acquire(timeout=60))
        save(self, checkpoint, keep=keep)

    monkeypatch.setattr(TrainingStep, "__call__", counted)
    monkeypatch.setattr(CheckpointFolder, "save", slow)
    result = run_finetune("train", config, STAGES, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert waited == [True]  # two more steps were taken


def test_a_run_is_the_same_and_resumes_from_every_checkpoint(config, alone, in_thread, tmp_path):
    result = run_finetune("train", config, STAGES, *EACH_STEP, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert result_of(tmp_path / "run") == alone
    ours, theirs = (sorted(os.listdir(tmp_path / name / "checkpoints")) for name in ("run", "alone"))
    assert ours == theirs
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], f"{status['last_checkpoint']}.safetensors") == ("done", ours[-1])


def test_a_full_disk_costs_a_checkpoint_and_no_training(config, in_thread, monkeypatch, tmp_path):
    def full(path, content):
        raise ResourceError(f"{os.strerror(errno.ENOSPC)}: {path}.")

    monkeypatch.setattr("finetune.runs.checkpoints.write_bytes", full)
    result = run_finetune("train", config, STAGES, *EACH_STEP, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "Training continues without this checkpoint." in " ".join(result.output.split())
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_kill_within_a_write_costs_this_checkpoint_alone(config, alone, tmp_path):
    killed = start(KILLED_IN_THE_FIFTH, "train", config, STAGES, *EACH_STEP, "--run-dir", tmp_path / "run")
    assert killed.wait(timeout=120) == -signal.SIGKILL
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))) == 4
    resumed = start("", "train", "--resume", tmp_path / "run")
    assert resumed.wait(timeout=120) == 0
    assert result_of(tmp_path / "run") == alone


def test_a_signal_waits_for_what_is_being_written(config, alone, tmp_path):
    slow = "save = checkpoints.CheckpointFolder.save\n"
    slow += "def waits(self, checkpoint, *, keep):\n    import time; time.sleep(0.3)\n"
    slow += "    save(self, checkpoint, keep=keep)\n"
    slow += "checkpoints.CheckpointFolder.save = waits"
    run = tmp_path / "run"
    started = start(slow, "train", config, STAGES, *EACH_STEP, "--run-dir", run)
    last = time.monotonic() + 60
    while not list((run / "checkpoints").glob("*.safetensors")):
        assert time.monotonic() < last
        time.sleep(0.02)
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=60) == 75
    status = json.loads((run / "status.json").read_text())
    newest = max((run / "checkpoints").glob("*.safetensors")).stem
    assert (status["state"], status["last_checkpoint"]) == ("stopped", newest)
    assert start("", "train", "--resume", run).wait(timeout=120) == 0
    assert result_of(run) == alone


def start(change, *arguments):
    command = [sys.executable, "-c", IN_THREAD.format(change), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
