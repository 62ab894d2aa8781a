import mmap
import os
from typing import get_args

import pytest
import torch

from finetune.choices import Precision
from finetune.errors import MachineError
from finetune.machine import device as device_module
from finetune.machine.device import (
    choose_device,
    choose_precision,
    describe,
    forget_peak_memory,
    has_fast_bfloat16,
    keep_large_buffers,
    peak_memory,
)


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert describe(torch.device("cpu")) == "CPU, 1 thread"  # as conftest sets it


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_an_error_and_no_fallback():
    with pytest.raises(MachineError, match=r"device: CUDA was requested, but torch sees none"):
        choose_device("cuda")


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
