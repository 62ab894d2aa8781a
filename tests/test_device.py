import mmap
import os
import threading
import warnings
from typing import get_args

import pytest
import torch
from conftest import run_finetune, write_small_config

from finetune.choices import Precision
from finetune.errors import MachineError
from finetune.machine import device as device_module
from finetune.machine.cores import in_threads
from finetune.machine.device import (
    choose_device,
    choose_precision,
    describe,
    describe_arithmetic,
    forget_peak_memory,
    has_fast_bfloat16,
    keep_large_buffers,
    peak_memory,
    set_arithmetic,
)


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert describe(torch.device("cpu")) == "CPU, 1 thread"  # as conftest sets it


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_an_error_and_no_fallback():
    with pytest.raises(MachineError, match=r"device: CUDA was requested, but torch sees none"):
        choose_device("cuda")


def test_a_training_on_the_cpu_leaves_a_gpu_alone(images, small_run, tmp_path, monkeypatch):
    """One that is full, or that another process has for itself, must not break it."""

    def touch(*_, **__):
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for there in (torch.cuda, torch.accelerator):
        monkeypatch.setattr(there, "is_available", lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != "")
    for name in ("_lazy_init", "current_device", "get_rng_state", "get_rng_state_all", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, touch)
    keys = ("device=cpu", "stages.frozen.lr=auto", "lr_finder.steps=20", "stages.unfrozen.epochs=1")
    config = write_small_config(tmp_path, images)
    for arguments in (
        ("train", config, *keys, "--run-dir", tmp_path / "run"),
        ("evaluate", small_run, "--device", "cpu"),
        ("predict", small_run, images / "cat", "--device", "cpu"),
    ):
        result = run_finetune(*arguments)
        assert result.exit_code == 0, result.output + repr(result.exception)


def test_from_python_a_gpu_stays_there_for_others(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    choose_device("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.fixture
def arithmetic():
    """Put back what steers how torch computes."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    torch.utils.deterministic.fill_uninitialized_memory = before[2]
    torch.backends.cuda.matmul.fp32_precision = before[3]
    torch.backends.cudnn.conv.fp32_precision = before[4]
    torch.backends.cudnn.benchmark = before[5]
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if before[6] is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = before[6]


def flags():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def test_a_gpu_computes_the_same_bits_unless_told_otherwise(arithmetic):
    before = flags()
    set_arithmetic(torch.device("cpu"), "float32", deterministic=True)
    assert flags() == before
    assert describe_arithmetic(torch.device("cpu")) == "the same bits"
    gpu = torch.device("cuda", 0)
    set_arithmetic(gpu, "float32", deterministic=True)
    assert flags() == (True, False, "ieee", "ieee", ":4096:8")
    assert describe_arithmetic(gpu).endswith("no TF32, deterministic")
    set_arithmetic(gpu, "bfloat16", deterministic=False)
    assert flags()[:4] == (False, True, "tf32", "tf32")
    assert describe_arithmetic(gpu).endswith(", TF32, not deterministic")


def test_a_gpu_that_is_not_used_is_a_warning_with_its_reason(images, tmp_path, monkeypatch):
    assert device_module.unused_gpu(torch.device("cuda", 0)) == ""
    monkeypatch.setattr(device_module, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without support for it" in device_module.unused_gpu(torch.device("cpu"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def broken():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    config, keys = write_small_config(tmp_path, images), ("lr_finder.steps=20", "data.images_per_class=5")
    monkeypatch.setattr(torch.cuda, "is_available", broken)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own looks
        result = run_finetune("lr-find", config, *keys)
        silent = run_finetune("lr-find", config, *keys, "device=cpu")
    said = "warning: a GPU seems to be here, and the CPU computes: PyTorch cannot use it: CUDA init"
    assert said in (result.stdout + result.stderr).replace("\n", " ")
    assert "a GPU seems" not in silent.stdout + silent.stderr


def test_a_gpu_that_emulates_bfloat16_is_not_given_it_and_warned_of(images, tmp_path, monkeypatch):
    gpu, asked = torch.device("cuda", 0), []

    def supported(including_emulation=True):
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose_precision("auto", gpu) == "float32"
    assert asked == [False]
    monkeypatch.setattr("finetune.experiment.build.emulates_bfloat16", lambda device: True)
    config, keys = write_small_config(tmp_path, images), ("lr_finder.steps=20", "data.images_per_class=5")
    warned = run_finetune("lr-find", config, *keys, "precision=bfloat16")
    said = "warning: precision: CPU, 1 thread emulates bfloat16, which is slower than float32"
    assert said in (warned.stdout + warned.stderr).replace("\n", " ")
    silent = run_finetune("lr-find", config, *keys)
    assert "emulates bfloat16" not in silent.stdout + silent.stderr


def test_a_named_precision_is_taken_as_it_is():
    cpu = torch.device("cpu")
    for name in get_args(Precision):
        assert choose_precision(name, cpu) == name


@pytest.mark.parametrize(("fast", "expected"), [(False, "float32"), (True, "bfloat16")])
def test_bfloat16_is_chosen_where_it_is_fast(monkeypatch, fast, expected):
    monkeypatch.setattr(device_module, "has_fast_bfloat16", lambda device: fast)
    assert choose_precision("auto", torch.device("cpu")) == expected


def test_no_processor_without_the_instructions_is_said_to_be_fast(monkeypatch):
    for flag in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, flag, lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: True)
    assert has_fast_bfloat16(torch.device("cpu")) is False


def test_large_buffers_can_be_kept_more_than_once():
    keep_large_buffers()
    keep_large_buffers()
    assert torch.ones(4_000_000).sum() == 4_000_000


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def fresh_memory(size):
    """Take and touch memory from the system, never memory that another test has freed."""
    block = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        block[page] = 1
    return block


def test_peak_memory_counts_from_when_it_was_told_to_forget():
    cpu = torch.device("cpu")
    with fresh_memory(100_000_000):
        assert (high := peak_memory(cpu)) is not None
    forget_peak_memory(cpu)
    assert (low := peak_memory(cpu)) <= high - 50_000_000
    with fresh_memory(200_000_000):
        assert peak_memory(cpu) >= low + 150_000_000


def test_memory_that_the_system_does_not_tell_is_none():
    assert peak_memory(torch.device("meta")) is None


@pytest.mark.parametrize("patience", [1.0, -1.0])
def test_threads_and_the_caller_give_the_same_in_the_same_order(monkeypatch, patience):
    monkeypatch.setattr("finetune.machine.cores._PATIENCE", patience)
    done_by = set()

    def square(number):
        done_by.add(threading.get_ident())
        return number * number

    assert list(in_threads(square, range(100))) == [(number, number**2) for number in range(100)]
    assert (done_by == {threading.get_ident()}) == (patience > 0)
