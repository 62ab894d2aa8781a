"""What can only be seen on a GPU: `pytest -m gpu`. In the slow tests a CPU stands in for it.

The stand-in shows that these tests start and are right about a device that is; nothing about a GPU.
"""

import json
import os
import shutil
import subprocess
import sys
from typing import get_args

import pytest
import torch
from conftest import ROOT, run_finetune, write_small_config
from one_batch import OneBatch
from run_result import result_of
from test_resume import as_if_killed_at
from torch import nn
from torchvision.transforms.v2 import functional

from finetune.choices import OptimizerName
from finetune.data.loading.draws import device_transform, pack
from finetune.data.loading.transforms import train_transform
from finetune.model.preprocessing import Preprocessing
from finetune.optim.build import build_optimizer
from finetune.optim.schedule import OneCycle
from finetune.training.events import START, Hooks, Loaders
from finetune.training.loop import fit_one_cycle
from finetune.training.step import TrainingStep

# What torch says of an operation that has no deterministic algorithm, and of its search for what waits.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*[Ss]ynchronization debug mode:UserWarning"),
]

KEYS = ("checkpoint.every=1", "checkpoint.keep=1000")
MIDDLE = "01-000001-000000002.safetensors"


@pytest.fixture(
    scope="module",
    params=[pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)],
)
def device(request):
    """Return the name of the device under test."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("torch sees no GPU here")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as a training sets it
        torch.zeros(1, device="cuda")  # now: a command on the CPU hides GPUs that nobody has woken up
    return request.param


@pytest.fixture
def gpu(device):
    """Return the name of the GPU; what needs one and nothing else has no stand-in."""
    if device == "cpu":
        pytest.skip("a CPU cannot stand in for this")
    return device


def train(config, run, *keys):
    result = run_finetune("train", config, "--run-dir", run, *keys)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return run


@pytest.fixture(scope="module")
def trained(device, images, tmp_path_factory):
    """Return the config and the run that other runs on the device are compared with."""
    folder = tmp_path_factory.mktemp("gpu")
    config = write_small_config(folder, images)
    return config, train(config, folder / "run", f"device={device}", *KEYS)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_command_runs_there(device, trained, images, tmp_path, precision):
    config, _ = trained
    run = train(config, tmp_path / "run", f"device={device}", f"precision={precision}")
    finding = ("lr_finder.steps=20", "lr_finder.race_steps=4", "--json")
    for command in (
        ("evaluate", run, "--device", device, "--json"),
        ("predict", run, images / "cat", "--device", device),
        ("lr-find", config, f"device={device}", f"precision={precision}", *finding),
        ("check", config, f"device={device}", f"precision={precision}"),
    ):
        result = run_finetune(*command)
        assert result.exit_code in ((0, 1) if command[0] == "lr-find" else (0,)), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_two_runs_have_the_same_bits_with_any_number_of_workers(device, trained, tmp_path, workers):
    if device == "cpu" and workers != 1:
        pytest.skip("other tests compare these on a CPU")
    config, run = trained
    again = train(config, tmp_path / "again", f"device={device}", f"data.workers={workers}", *KEYS)
    expected, got = result_of(run), result_of(again)
    assert {name for name in expected if name != "config" and got[name] != expected[name]} == set()


def test_a_run_that_was_killed_ends_with_the_same_bits(trained, tmp_path):
    as_if_killed_at(MIDDLE, trained[1], tmp_path / "run")
    result = run_finetune("train", "--resume", tmp_path / "run")
    assert result.exit_code == 0, result.output
    expected, got = result_of(trained[1]), result_of(tmp_path / "run")
    assert {name for name in expected if got[name] != expected[name]} == set()


def test_a_run_that_goes_on_elsewhere_says_that_its_bits_may_differ(gpu, trained, tmp_path):
    as_if_killed_at(MIDDLE, trained[1], tmp_path / "run")
    result = run_finetune("train", "--resume", tmp_path / "run", "device=cpu")
    assert result.exit_code == 0, result.output
    assert "arithmetic CUDA" in result.output.replace("\n", " ")
    assert json.loads((tmp_path / "run" / "started.json").read_text())["inexact"]


def after_steps(name, device):
    """Return the weights after ten steps of an optimizer from the same start."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    inputs, targets = torch.randn(32, 6).to(device), torch.arange(32).to(device) % 3
    model.to(device)
    group = {"params": list(model.parameters()), "lr": 1e-3, "weight_decay": 0.01}
    optimizer = build_optimizer([group], name=name, decay="decoupled")
    step = TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=0, stage=0)
    for number in range(10):
        step([inputs], targets, epoch=0, batch=number, rates=[1e-3], momentum=0.9)
    return torch.cat([parameter.detach().flatten().cpu() for parameter in model.parameters()])


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_an_optimizer_takes_the_steps_that_it_takes_on_a_cpu(device, name):
    torch.testing.assert_close(after_steps(name, device), after_steps(name, "cpu"), rtol=1e-4, atol=1e-5)


def repeated(number, device):
    """Return one small batch that is shown so often."""
    images, targets = torch.randn(8, 3, 16, 16), torch.arange(8) % 2
    return OneBatch(images.to(device), targets.to(device), number)


def test_no_step_waits_for_the_device(device):
    """After the first few, and until the last: torch raises at whatever waits in between."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 2))
    model.to(device)
    group = {"params": list(model.parameters()), "lr": 1e-3, "weight_decay": 0.01}
    optimizer = build_optimizer([group], name="adam", decay="decoupled")
    step = TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=0, stage=0)
    watched, steps = [], 20

    def after(done):
        if device == "cuda" and done.step in (3, steps - 4):
            torch.cuda.set_sync_debug_mode("error" if done.step == 3 else "default")
        watched.append(done.step)

    hooks = Hooks(step=after, epoch=lambda epoch: None, val_batch=lambda done, total: None)
    loaders = Loaders(repeated(steps, device), repeated(1, device), torch.device(device))
    try:
        fit_one_cycle(step, loaders, epochs=1, cycle=OneCycle(), hooks=hooks, reached=START)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert watched == list(range(steps))


@pytest.mark.parametrize("level", ["light", "standard"])
def test_images_that_the_device_varies_differ_by_one_grey_level_at_the_most(device, level):
    preprocessing = Preprocessing(64, 73, (0.5,) * 3, (0.25,) * 3, "bilinear")
    whole, halves = train_transform(level, preprocessing), device_transform(level, preprocessing)
    expected, draws = [], []
    for seed, shape in enumerate([(90, 120), (375, 500), (1, 1), (30, 400), (64, 64), (400, 300)]):
        pixels = torch.rand(3, *(1 + side // 8 for side in shape))
        image = functional.resize((pixels * 255).to(torch.uint8), list(shape), antialias=True)
        for transform, made in ((whole, expected), (halves, draws)):
            torch.manual_seed(seed)
            made.append(transform(functional.to_pil_image(image)))
    batch = pack(draws).to(torch.device(device), non_blocking=True)
    difference = halves.halves.finish(batch).cpu().int() - torch.stack(expected).int()
    assert int(difference.abs().max()) <= 1


def test_a_training_varies_its_images_there(device, trained, tmp_path):
    keys = (f"device={device}", "data.augment=standard", "data.augment_on=device")
    runs = [train(trained[0], tmp_path / f"run{n}", *keys, f"data.workers={n}") for n in (0, 1)]
    expected, got = map(result_of, runs)
    assert {name for name in expected if name != "config" and got[name] != expected[name]} == set()


def test_memory_that_runs_out_ends_with_6_and_what_to_lower(gpu, trained, tmp_path):
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 20)) / total)
    try:
        keys = (f"device={gpu}", "data.image_size=512", "data.batch_size=16")
        result = run_finetune("train", trained[0], "--run-dir", tmp_path / "run", *keys)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.exit_code == 6, result.output
    assert "Out of memory" in result.stderr


UNTOUCHED = """
import sys, torch
from finetune.__main__ import main
try:
    main()
except SystemExit as end:
    sys.exit(end.code or 77 * torch.cuda.is_initialized())
"""


def test_a_training_on_the_cpu_leaves_a_gpu_untouched(gpu, trained, tmp_path):
    """test_device.py shows that nothing asks for one, where there is none."""
    arguments = ["train", str(trained[0]), "--run-dir", str(tmp_path / "run"), "device=cpu"]
    result = subprocess.run([sys.executable, "-c", UNTOUCHED, *arguments], check=False)
    assert result.returncode == 0
    shutil.rmtree(tmp_path / "run")


@pytest.mark.slow
def test_the_benchmark_for_a_gpu_runs_through_where_a_cpu_stands_in(tmp_path):
    program = ROOT / "benchmarks" / "gpu.py"
    command = [sys.executable, program, "--device", "cpu", "--small"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    # A busy machine has no time for all of a phase.
    measured = [line for line in lines if "left_out" not in line]
    assert {line["phase"] for line in measured} == {"machine", *PHASES}


PHASES = {
    *("ceilings", "loop", "fastai", "determinism"),
    *("checkpoint", "compilation", "augmentation", "whole"),
}
