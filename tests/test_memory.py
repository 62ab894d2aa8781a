"""Memory that runs out: told from other errors, in every command, with the exit code that scripts rely on."""

import json
from itertools import count

import pytest
import torch
from conftest import run_finetune, write_small_config

import finetune
from finetune.errors import ResourceError
from finetune.machine.memory import out_of_memory
from finetune.training.step import TrainingStep

RUN_OUT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.45 GB, max allowed: 18.13 GB)."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("unable to mmap 1000 bytes from file </x>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    MemoryError("Unable to allocate 3.2 GiB for an array with shape (9, 9)"),
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
]
if hasattr(torch, "AcceleratorError"):
    RUN_OUT.append(torch.AcceleratorError("CUDA error: out of memory", 2))


@pytest.mark.parametrize("error", RUN_OUT, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_it_is_known_by_every_name_it_has(error):
    known = out_of_memory(error, 64)
    assert isinstance(known, ResourceError)
    first, second = str(known).splitlines()
    assert first.startswith("Out of memory: data.batch_size 64 does not fit (")
    assert "data.batch_size=32" in second
    assert len(str(out_of_memory(error)).splitlines()) == 2


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        OSError(2, "No"),
    ],
)
def test_other_errors_are_none_of_it(error):
    assert out_of_memory(error, 64) is None


def run_out(*_, **__):
    raise RUN_OUT[1]


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("train CONFIG", "finetune.commands.prepare.build_experiment"),
        ("lr-find CONFIG", "finetune.commands.prepare.build_experiment"),
        ("labels CONFIG", "finetune.commands.prepare.build_experiment"),
        ("curve CONFIG", "finetune.commands.prepare.build_experiment"),
        ("check CONFIG", "finetune.commands.check.check.build_experiment"),
        ("evaluate RUN", "finetune.model.classifier.ImageClassifier.forward"),
        ("predict RUN IMAGES", "finetune.model.classifier.ImageClassifier.features"),
    ],
)
def test_every_command_says_so_and_ends_with_6(command, where, small_run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(where, run_out)
    places = {"CONFIG": write_small_config(tmp_path, images), "RUN": small_run, "IMAGES": images / "cat"}
    result = run_finetune(*(places.get(part, part) for part in command.split()))
    assert result.exit_code == 6, result.output + repr(result.exception)
    assert "error: Out of memory (CUDA error: out of memory)\nSet data.batch_size or data.i" in result.stderr
    assert "Traceback" not in result.output


def test_python_raises_it_as_the_error_it_is(small_run, images, monkeypatch):
    model = finetune.load(small_run)
    monkeypatch.setattr("finetune.model.classifier.ImageClassifier.features", run_out)
    with pytest.raises(finetune.FinetuneError, match="Out of memory") as error:
        model.predict(images / "cat" / "cat00.png")
    assert error.value.exit_code == 6


@pytest.mark.slow
def test_a_step_for_which_there_is_no_memory_costs_no_other(small_run, images, tmp_path, monkeypatch):
    run, steps, step = tmp_path / "run", count(), TrainingStep.__call__

    def fourth_runs_out(self, *values, **named):
        return run_out() if next(steps) == 3 else step(self, *values, **named)

    command = ("train", write_small_config(tmp_path, images), "--run-dir", run)
    with monkeypatch.context() as patched:
        patched.setattr(TrainingStep, "__call__", fourth_runs_out)
        result = run_finetune(*command)
    assert result.exit_code == 6, result.output + repr(result.exception)
    assert "data.batch_size" in result.stderr
    assert json.loads((run / "status.json").read_text())["resumable"]
    assert run_finetune(*command, "--resume").exit_code == 0
    assert (run / "model.safetensors").read_bytes() == (small_run / "model.safetensors").read_bytes()
