"""Networks that torch compiles for training; the compiler takes a minute, so these are slow tests."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import run_finetune, write_small_config
from run_result import result_of
from torch import nn

from finetune.errors import ConfigError, MachineError
from finetune.experiment.ranks import check_ranks
from finetune.machine.ranks import Ranks
from finetune.training.compiled import compiled
from finetune.training.step import StepOptions, TrainingStep

STAGES = "stages=[{name: all, train: all, epochs: 2, lr: 1e-3}]"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def test_several_devices_refuse_a_compiled_network():
    with pytest.raises(ConfigError, match=r"2 devices cannot share .*\nSet compile=false"):
        check_ranks(Ranks(size=2), 8, compiled=True)
    check_ranks(Ranks(), 8, compiled=True)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_step_is_the_step_and_leaves_the_frozen_alone():
    images, targets = torch.randn(6, 3, 8, 8), torch.arange(6) % 4
    weights, losses = {}, {}
    for kind in (False, True):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
        )
        module[0].requires_grad_(False)
        optimizer = torch.optim.SGD([one for one in module.parameters() if one.requires_grad], lr=0.1)
        options = StepOptions(compiled=kind, batch_size=4)  # parts of 3 and 3
        step = TrainingStep(module, optimizer, loss=nn.CrossEntropyLoss(), seed=0, stage=0, options=options)
        position = {"epoch": 0, "rates": step.group_rates, "momentum": None}
        losses[kind] = [float(step([images], targets, batch=batch, **position).loss) for batch in range(3)]
        weights[kind] = module.state_dict()
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    for name, tensor in weights[False].items():
        torch.testing.assert_close(weights[True][name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_training_goes_on_bit_for_bit(images, tmp_path):
    config, keys = write_small_config(tmp_path, images), (STAGES, "compile=true", "checkpoint.every=1")
    run, part = tmp_path / "run", tmp_path / "part"
    result = run_finetune("train", config, *keys, "checkpoint.keep=100", "--run-dir", run)
    assert result.exit_code == 0, result.output
    assert "compile torch compiles the network" in result.output
    shutil.copytree(run, part)
    later = sorted((part / "checkpoints").glob("*.safetensors"))[2:]
    for checkpoint in later:
        checkpoint.unlink()
    assert later
    (part / "status.json").write_text((run / "status.json").read_text().replace('"done"', '"running"'))
    resumed = subprocess.run(
        [sys.executable, "-m", "finetune", "train", "--resume", part], capture_output=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert result_of(part) == result_of(run)


@pytest.mark.slow
def test_without_a_compiler_two_lines_say_what_to_do(images, tmp_path):
    command = [sys.executable, "-m", "finetune", "train", write_small_config(tmp_path, images), STAGES]
    ended = subprocess.run(
        [*command, "compile=true", "--quiet"],
        env=os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == MachineError.exit_code
    said = ended.stderr.strip().splitlines()[-2:]
    assert said[0].startswith("error: compile: torch cannot compile this network here: ")
    assert said[1].startswith("Set compile=false")


@pytest.mark.slow
@needs_compiler
def test_what_is_compiled_computes_as_the_module_does_now():
    module = nn.Linear(3, 2)
    forward = compiled(module)
    images = torch.randn(5, 3)
    torch.testing.assert_close(forward(images), module(images))
    with torch.no_grad():
        module.weight.zero_()
    torch.testing.assert_close(forward(images), module.bias.expand(5, 2))
