"""What this machine offers: the device, the number format it is fast in, and its memory."""

import contextlib
import ctypes
import os
import re
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from finetune.choices import DeviceName, Precision, PrecisionSetting
from finetune.errors import MachineError
from finetune.machine.hardware import has_gpu, hide_gpus, usable_memory
from finetune.machine.ranks import ALONE, Ranks
from finetune.text import counted

# CPUs that compute in bfloat16 measured 1.7 times as fast in it as in float32 and more, CPUs that emulate it
# 0.3 times. The bar lies far from both, so that a busy moment does not choose another precision.
_LEAST_SPEEDUP = 0.7


class LateNumbers:
    """Numbers that a device is still computing, read when they are there.

    A GPU runs behind the CPU that gives it work. Reading a number at once makes the CPU wait for all the work
    given so far, and then the GPU for more of it; so the copy is requested now, and looked at a step later.
    """

    def __init__(self, values: Tensor) -> None:
        """Ask for a copy of some numbers (n,) on the CPU."""
        self._values, self._copied = values, None
        if values.is_cuda:  # on other devices a copy that nobody waits for may be read too early
            self._values = values.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """Return the numbers, waiting for the work that makes them and for none given after it."""
        if self._copied is not None:
            self._copied.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers


def choose_device(name: DeviceName, ranks: Ranks = ALONE) -> torch.device:
    """Return the device to train on; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Each of several ranks on a machine takes a GPU of its own.

    Raises:
        MachineError: the named device is not there, or there are fewer GPUs than ranks.
    """
    if name == "cpu":
        hide_gpus()
        return torch.device("cpu")
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not ranks.alone and name != "mps":
        return _device_of_rank(present["cuda"], name, ranks)
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present[name]:
        found = ", ".join(kind for kind, there in present.items() if there)
        raise MachineError(
            f"device: {name.upper()} was requested, but torch sees none on this machine (it sees: {found}).\n"
            "Set device=auto to use what is there, or fix the driver or the torch build."
        )
    return torch.device(name)


def _device_of_rank(has_cuda: bool, name: DeviceName, ranks: Ranks) -> torch.device:
    """Return the device of one of several ranks: never Apple's GPU, which one process alone can use."""
    if not has_cuda:
        if name == "cuda":
            raise MachineError(
                "device: CUDA was requested, but torch sees none here.\nSet device=cpu or auto."
            )
        return torch.device("cpu")
    if (there := torch.cuda.device_count()) < ranks.local_size:
        raise MachineError(
            f"{ranks.local_size} devices were requested; this machine has {counted(there, 'GPU')}.\n"
            f"Train on {there}, or set device=cpu."
        )
    device = torch.device("cuda", ranks.local_rank)
    torch.cuda.set_device(device)
    return device


def unused_gpu(device: torch.device) -> str:
    """Say why a GPU that seems to be here is not used; empty where it is, or there is none."""
    if device.type != "cpu" or not has_gpu():
        return ""
    if sys.platform == "darwin" or torch.version.cuda is None:
        why = f"this PyTorch ({torch.__version__}) is built without support for it"
    else:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.is_available()
        first = next((str(one.message).splitlines()[0] for one in caught), "its driver does not answer")
        why = f"PyTorch cannot use it: {first}"
    return f"a GPU seems to be here, and the CPU computes: {why}\ndevice=cpu says that this is meant."


def set_arithmetic(device: torch.device, precision: Precision, *, deterministic: bool) -> None:
    """Choose how a GPU computes; a CPU has no choice, and is left alone.

    Where an operation has no deterministic algorithm, torch warns and goes on.

    Args:
        device: of the model.
        precision: `float32` is without TF32; with `bfloat16` it is allowed for what stays in float32.
        deterministic: whether the same bits are computed in every run.
    """
    if device.type != "cuda":
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    arithmetic = "ieee" if precision == "float32" else "tf32"
    torch.backends.cuda.matmul.fp32_precision = arithmetic
    torch.backends.cudnn.conv.fp32_precision = arithmetic  # type: ignore[attr-defined]


def describe_arithmetic(device: torch.device) -> str:
    """Name what the bits of a GPU's results depend on, besides its model; `the same bits` of a CPU."""
    if device.type != "cuda":
        return "the same bits"
    exact = torch.backends.cuda.matmul.fp32_precision == "ieee"
    parts = (
        f"CUDA {torch.version.cuda}",
        f"cuDNN {torch.backends.cudnn.version()}",  # type: ignore[no-untyped-call]
        "no TF32" if exact else "TF32",
        "deterministic" if torch.are_deterministic_algorithms_enabled() else "not deterministic",
    )
    return ", ".join(parts)


def choose_precision(name: PrecisionSetting, device: torch.device) -> Precision:
    """Return the number format of the forward pass; `auto` is bfloat16 where the hardware is fast in it."""
    if name != "auto":
        return name
    return "bfloat16" if has_fast_bfloat16(device) else "float32"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether `device` computes in bfloat16, rather than emulating it.

    A CPU that claims the instructions is also measured, with about 50 ms of convolution: under emulation the
    claim alone promises too much.
    """
    if device.type == "cuda":
        return not emulates_bfloat16(device)
    return device.type == "cpu" and _cpu_claims_bfloat16() and _bfloat16_speedup() > _LEAST_SPEEDUP


def emulates_bfloat16(device: torch.device) -> bool:
    """Tell whether a GPU has no bfloat16 of its own, and computes in it slower than in float32."""
    return device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)


def _cpu_claims_bfloat16() -> bool:
    if torch.cpu._is_avx512_supported():
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    # Other processors (64-bit Arm among them) have no such flag in torch: let the measurement decide.
    return not torch.cpu._is_avx2_supported()


def _bfloat16_speedup() -> float:
    """Compare the best times of one small convolution in float32 and in bfloat16, taken in turn."""
    weight = torch.full((64, 64, 3, 3), 0.01, requires_grad=True)
    images = torch.full((8, 64, 28, 28), 0.5).contiguous(memory_format=torch.channels_last)
    timings: dict[bool, list[float]] = {False: [], True: []}
    for repeat in range(12):
        in_bfloat16 = repeat % 2 == 1
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
            output = nn.functional.conv2d(images, weight, padding=1)
        output.float().sum().backward()  # type: ignore[no-untyped-call]
        timings[in_bfloat16].append(time.perf_counter() - start)
    return min(timings[False]) / min(timings[True])


def keep_large_buffers() -> None:
    """Let glibc keep large freed blocks, so that activations are not returned and faulted in at every step.

    Measured 1.16× in training on a CPU. Elsewhere than on Linux with glibc it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return
    m_trim_threshold, m_mmap_threshold, one_gib = -1, -3, 1 << 30
    mallopt(m_mmap_threshold, one_gib)
    mallopt(m_trim_threshold, one_gib)


def total_memory(device: torch.device) -> int | None:
    """Return the bytes of memory that a device has, or that this process may use of it; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return usable_memory()


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes that this process has held on the device: a GPU's tensors, or the whole process.

    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


def describe(device: torch.device) -> str:
    """Name the device as a person would: the GPU's model, or the CPU's number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU (MPS)"
    threads = torch.get_num_threads()
    return f"CPU, {counted(threads, 'thread')}"
