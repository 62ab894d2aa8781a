"""What this machine has, found out without importing torch."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GPU = Path("/dev/nvidia0")
# Where Linux says how much memory a container may use, by the version of its control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def has_gpu() -> bool:
    """Tell whether there seems to be a GPU that torch can use: one of NVIDIA's, or Apple's own."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return _GPU.exists() or shutil.which("nvidia-smi") is not None


@contextmanager
def whole_process() -> Iterator[None]:
    """Say that this process does nothing but what is inside, so that it may be set up for that."""
    _Process.is_ours = True
    try:
        yield
    finally:
        _Process.is_ours = False


class _Process:
    is_ours = False


def hide_gpus() -> None:
    """Keep torch from looking for NVIDIA's GPUs, if the whole process is for one command.

    Its optimizers ask a GPU that is there for its stream, also where all they update is on the CPU: one that
    is full, or that another process has for itself, would end a training on the CPU.
    """
    if _Process.is_ours:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def usable_memory() -> int | None:
    """Return the bytes of memory that this process may use, within its container; None if not known."""
    sizes = [size for path in _LIMITS if (size := _limit(path)) is not None]
    with suppress(AttributeError, ValueError, OSError):  # Windows
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(sizes, default=None)


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # none, or `max`
        return None
