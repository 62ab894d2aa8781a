"""What a training depends on here: versions, devices, cores, memory, folders, weights."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from os.path import exists
from pathlib import Path

from packaging.requirements import Requirement

from finetune.commands.doctor.privacy import shown_place
from finetune.commands.doctor.trouble import Place, Resources, Trouble, unmet
from finetune.machine.cache import cache_folder
from finetune.machine.cores import usable_cores
from finetune.machine.hardware import usable_memory
from finetune.machine.provenance import library_versions, processor
from finetune.version import VERSION

CORE = (
    "torch",
    "torchvision",
    "fastai",
    "numpy",
    "pillow",
    "scikit-learn",
    "scipy",
    "safetensors",
    "pydantic",
)
EXTRAS = (
    *("timm", "pandas", "pyarrow", "pillow-heif", "onnx", "onnxruntime", "cleanlab", "tensorboard", "wandb"),
    *("mlflow", "fastapi", "uvicorn"),
)
VARIABLES = (
    *(
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "FINETUNE_CACHE_SIZE",
        "FINETUNE_DECODED_SIZE",
    ),
    *("HF_HUB_OFFLINE", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG"),
)
"""Of the environment: what changes a training, and holds no secret."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_OLD_QUOTA = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def versions() -> dict[str, str]:
    """Return the versions of what is installed; of what is not, `not installed` if finetune needs it."""
    found = {"finetune": VERSION, "python": platform.python_version()}
    core, extras = library_versions(*CORE), library_versions(*EXTRAS)
    found |= {name: number or "not installed" for name, number in core.items()}
    return found | {name: number for name, number in extras.items() if number}


def unmet_requirements() -> Iterator[Trouble]:
    """Return what is installed in another version than finetune was made for; extras need not be there."""
    try:
        written = requires("finetune-vision") or []
    except PackageNotFoundError:  # a checkout that was not installed
        return
    for line in written:
        one = Requirement(line)
        is_extra = one.marker is not None and not one.marker.evaluate({"extra": ""})
        found = library_versions(one.name)[one.name]
        if found == "" and is_extra:
            continue
        if found == "" or not one.specifier.contains(found, prereleases=True):
            yield unmet(one.name, f"{one.name}{one.specifier}", found)


def system() -> dict[str, str]:
    """Return the system and the processor."""
    model = next(
        (line.partition(":")[2].strip() for line in processor() if line.startswith("model name")), ""
    )
    return {"system": f"{platform.system()} {platform.release()}", "processor": model or platform.machine()}


def resources(threads: int | None) -> Resources:
    """Return what there is of cores and memory, within the container."""
    shared: int | None = None
    with suppress(OSError):
        shared = shutil.disk_usage("/dev/shm").free
    return Resources(usable_cores(), cpu_quota(), threads, usable_memory(), shared)


def cpu_quota(whole: Path = _QUOTA, old: tuple[Path, Path] = _OLD_QUOTA) -> float | None:
    """Return how many cores' worth of time the control group allows; None for no bound.

    Args:
        whole: where version 2 of control groups writes quota and period.
        old: where version 1 does, one file each.
    """
    for files in ((whole,), old):
        with suppress(OSError, ValueError):
            quota, period = " ".join(path.read_text() for path in files).split()
            return int(quota) / int(period) if int(quota) > 0 else None
    return None


def places() -> list[Place]:
    """Return the folders that are written to: of temporary files, of runs, and the caches."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    torch_home = Path(os.environ.get("TORCH_HOME") or user_cache / "torch")
    hub = Path(os.environ.get("HF_HOME") or user_cache / "huggingface")
    return [
        _place("temporary files", Path(tempfile.gettempdir()), needed=True, variable="TMPDIR"),
        _place("the current folder, for runs", Path.cwd(), shown="."),
        _place("the cache of finetune", cache_folder(), variable="XDG_CACHE_HOME"),
        _place("the weights of torch", torch_home, variable="TORCH_HOME"),
        _place("the weights of the hub", hub, variable="HF_HOME"),
    ]


def variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables that change a training."""
    return {name: environment[name] for name in VARIABLES if name in environment}


def _place(what: str, folder: Path, *, shown: str = "", needed: bool = False, variable: str = "") -> Place:
    there = next((path for path in (folder, *folder.parents) if exists(path)), Path("/"))
    free: int | None = None
    with suppress(OSError):
        free = shutil.disk_usage(there).free
    return Place(what, shown or shown_place(folder), _is_writable(there), free, needed, variable)


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
