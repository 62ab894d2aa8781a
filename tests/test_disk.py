"""Disks that are full, read-only or gone: what was saved stays, and a line says what is wrong."""

import errno
import json
import os
import subprocess

import pytest
from conftest import SMALL_CONFIG, run_finetune, some_quick

from finetune.errors import ResourceError
from finetune.machine.files import write_bytes
from finetune.runs import checkpointer as checkpointing

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a file system of so many bytes."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("may not mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def config(images, tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL_CONFIG.format(path=images))
    return file


def test_too_small_a_disk_is_refused_before_training(config, small_disk):
    disk = small_disk(8 * MIB)
    result = run_finetune("train", config, "--run-dir", disk / "run")
    assert result.exit_code == 6
    assert "training needs about" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 2
    assert not (disk / "run" / "history.csv").exists()


def test_a_full_disk_costs_a_checkpoint_and_nothing_that_was_saved(config, small_disk, monkeypatch):
    """The model takes 1.5 MiB, and a checkpoint with the state of Adam for all of it three times as much."""
    monkeypatch.setattr(checkpointing.Checkpointer, "check_space", lambda self, averaged: None)
    disk = small_disk(8 * MIB)
    result = run_finetune("train", config, "--run-dir", disk / "run", "checkpoint.every=1")
    run = disk / "run"
    said = " ".join(result.output.split())
    assert "No space left on device" in said
    assert "Training continues without this checkpoint." in said
    assert result.exit_code in (0, 6), result.output
    assert not list((run / "checkpoints").glob(".*"))
    assert run_finetune("evaluate", run, "--json").exit_code == 0
    for line in (run / "events.jsonl").read_text().splitlines():
        json.loads(line)
    subprocess.run(["mount", "-o", f"remount,size={64 * MIB}", disk], check=True)
    assert run_finetune("train", "--resume", run).exit_code == 0


@pytest.mark.parametrize("remount", some_quick(["", "ro"], "ro"))
def test_a_cache_on_a_disk_that_is_full_or_read_only_costs_a_training_nothing(
    remount, config, small_disk, tmp_path, monkeypatch
):
    disk = small_disk(64 * 2**10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", "1GB")
    (disk / "other").write_bytes(bytes(60 * 2**10))
    if remount:
        subprocess.run(["mount", "-o", f"remount,{remount}", disk], check=True)
    for name in ("first", "second"):
        result = run_finetune("train", config, "--run-dir", tmp_path / name, "stages.frozen.views=eval")
        assert result.exit_code == 0, result.output
        assert "are in the cache" not in result.stdout
        assert result.stderr == ""
    assert not list(disk.rglob("*.tmp"))
    assert {path.parent.name for path in disk.rglob("*.safetensors")} <= {"scans"}


@pytest.mark.slow
def test_decoded_images_on_a_disk_that_fills_up_cost_a_training_nothing(
    config, small_disk, tmp_path, monkeypatch
):
    """There is room for some blocks of two images, and not for all."""
    disk = small_disk(512 * 2**10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    monkeypatch.setenv("FINETUNE_DECODED_SIZE", "1GB")
    monkeypatch.setattr("finetune.data.loading.decoded.SETTLED", 0)
    monkeypatch.setattr("finetune.data.loading.decode_once._BLOCK", 6000)
    monkeypatch.setattr("finetune.experiment.decoded_images._free", lambda folder: 10**9)
    (disk / "other").write_bytes(bytes(350 * 2**10))
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", "data.cache=disk")
    assert result.exit_code == 0, result.output
    assert result.output.count("cannot be written, or its disk is full") == 1
    assert "images: decoded once and kept on disk: " in result.stdout
    assert not list(disk.rglob("*.tmp"))


def test_a_file_survives_a_write_that_the_disk_refuses(small_disk):
    file = small_disk(MIB) / "file"
    write_bytes(file, b"before")
    with pytest.raises(ResourceError, match=r"No space left on device.*is intact"):
        write_bytes(file, bytes(2 * MIB))
    assert file.read_bytes() == b"before"
    assert os.listdir(file.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE])
def test_a_file_survives_an_error_of_any_system_call(call, number, tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_bytes(file, b"before")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ResourceError):
        write_bytes(file, b"after")
    assert file.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_read_only_disk_is_told_at_once(config, small_disk):
    disk = small_disk(MIB)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    result = run_finetune("train", config, "--run-dir", disk / "run")
    assert result.exit_code == 8
    assert "Read-only file system" in result.stderr
    assert "checking" not in result.output


def test_a_run_directory_that_vanishes_is_told(config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    save = checkpointing.Checkpointer.save

    def save_then_vanish(self, *arguments):
        save(self, *arguments)
        run.rename(tmp_path / "gone")

    monkeypatch.setattr(checkpointing.Checkpointer, "save", save_then_vanish)
    result = run_finetune("train", config, "--run-dir", run)
    assert result.exit_code == 6, result.output
    assert "No such file or directory" in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
