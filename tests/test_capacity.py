"""What cannot fit the machine is said before it is tried."""

import pytest
from conftest import run_finetune, write_small_config
from torchvision.models import resnet18

from finetune.data.loading.workers import most_workers
from finetune.experiment import capacity
from finetune.model.meta import largest_output


@pytest.mark.parametrize("command", ["train", "check", "groups", "lr-find"])
def test_a_head_of_terabytes_is_refused_at_once(command, images, tmp_path):
    hidden = [65_536] * 8
    result = run_finetune(command, write_small_config(tmp_path, images), f"model.head.hidden={hidden}")
    assert result.exit_code == 6, result.output
    assert (
        "is a head of 30.1 billion weights, which takes at least 224 GiB; this machine has" in result.output
    )
    assert "Set narrower layers" in result.output


def test_a_batch_of_more_images_than_the_memory_holds_is_refused(images, tmp_path, monkeypatch):
    config = write_small_config(tmp_path, images)
    monkeypatch.setattr(capacity, "total_memory", lambda device: 1_000_000_000)
    result = run_finetune("train", config, "data.image_size=2048", "data.batch_size=16")
    assert result.exit_code == 6, result.output
    assert "data.batch_size: a batch of 16 images of 2048 px, which takes at least 1.7 GiB" in result.output
    assert "this machine has 0.93 GiB (cpu)" in result.output
    stage = "stages.frozen.image_size=4096"
    assert "of 4096 px" in run_finetune("train", config, stage, "data.batch_size=4").output


def test_a_layer_whose_output_alone_is_too_much_is_refused_too(images, tmp_path, monkeypatch):
    # Of 16 images of 512 px: 0.1 GiB. The first convolution has 24 channels of half their side: 0.1 GiB as
    # well, and of a resnet18 64, which are 0.25 GiB.
    monkeypatch.setattr(capacity, "total_memory", lambda device: 200_000_000)
    config = write_small_config(tmp_path, images)
    arguments = ("train", config, "--dry-run", "data.image_size=512", "data.batch_size=16")
    assert run_finetune(*arguments).exit_code == 0
    result = run_finetune(*arguments, "model.arch=resnet18", "model.weights=none")
    assert result.exit_code == 6, result.output
    assert (
        "a batch of 16 images of 512 px, which takes at least 0.25 GiB; this machine has 0.19"
        in result.output
    )


def test_the_largest_output_is_that_of_the_first_convolution():
    assert largest_output(resnet18(), 224) == 64 * 112 * 112


def test_more_processes_than_cores_keep_busy_are_not_started(images, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune.experiment.build.most_workers", lambda: 1)
    monkeypatch.setattr("finetune.data.loading.workers.most_workers", lambda cores: 0)
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "data.workers=200", "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert (
        "warning: data.workers: 200 is more than the cores of this machine keep busy; using 1"
        in result.output
    )


def test_a_few_processes_are_always_allowed():
    assert [most_workers(cores) for cores in (1, 4, 8, 64)] == [16, 16, 32, 256]
