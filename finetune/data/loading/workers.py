"""The processes that load images: how many, how they start, and what their failures mean."""

import multiprocessing
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from finetune.errors import ResourceError
from finetune.machine.cores import usable_cores
from finetune.machine.signals import ASKING, end_with_parent

WORKER_TIMEOUT = 300
"""seconds without an answer after which a worker counts as stuck"""

_MOST_WORKERS = 8
_MOST_ON_FEW_CORES, _MOST_OF_A_CORE = 16, 4
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid.*(is killed|exited unexpectedly)")
_UNDER_WAY = 2  # batches of each worker: torch's `prefetch_factor`
_WORTH_WORKERS = 200  # images; fewer are read before the processes have started


def most_workers(cores: int | None = None) -> int:
    """Return how many processes a setting may start: each takes memory, and more only wait for each other."""
    return max(_MOST_ON_FEW_CORES, _MOST_OF_A_CORE * (usable_cores() if cores is None else cores))


def choose_workers(
    setting: int | Literal["auto"], n_images: int, *, device_type: str, cores: int | None = None
) -> int:
    """Decide how many processes load images.

    Args:
        setting: that many, but no more than `most_workers`; or `auto`.
        n_images: images in a pass; 0 or few small ones are not worth a process.
        device_type: where the model computes; on `cpu` it needs the cores itself.
        cores: cores that this process may use; `None` asks the system.
    """
    if cores is None:
        cores = usable_cores()
    if setting != "auto":
        return min(setting, most_workers(cores))
    if n_images < _WORTH_WORKERS or cores <= (2 if device_type == "cpu" else 1):
        return 0
    return min(cores - 1, _MOST_WORKERS)


def workers_with_room(workers: int, batch_bytes: int, *, shared_memory: Path = Path("/dev/shm")) -> int:
    """Return how many of some workers have room for the batches that they hand over.

    Each has two of its own under way, and one more is in use, in memory that the processes share: a container
    has 64 MB of it unless told otherwise, and a worker that finds none is killed.

    Args:
        workers: processes that would load images.
        batch_bytes: of a batch of images.
        shared_memory: where Linux keeps it; there is no limit where it is missing.
    """
    try:
        free = shutil.disk_usage(shared_memory).free
    except OSError:
        return workers
    return max(0, min(workers, (free // batch_bytes - 1) // _UNDER_WAY))


def memory_to_hand_over(shared_memory: Path = Path("/dev/shm")) -> int | None:
    """Return how much that this process holds its workers can have; None where there is no bound.

    Forked ones see all of it. Where processes are started anew, it is moved into memory that they share.
    """
    usual = multiprocessing.get_all_start_methods()[0]
    if (multiprocessing.get_start_method(allow_none=True) or usual) == "fork":
        return None
    try:
        return shutil.disk_usage(shared_memory).free // 2
    except OSError:
        return None


def worker_failure(error: RuntimeError) -> ResourceError | None:
    """Translate torch's complaint about a worker, `None` if the error is about something else.

    torch raises it in the main process wherever that is when a worker dies, not only in the loader.
    """
    text = str(error)
    if "DataLoader timed out" in text:
        return ResourceError(
            f"no data worker answered for {WORKER_TIMEOUT} s: the storage may hang, or memory "
            "may have run out. Try again, with data.workers set lower."
        )
    if not _DEAD_WORKER.search(text):
        return None
    memory = "shared memory (/dev/shm)" if "shared memory" in text else "memory"
    return ResourceError(
        f"a data worker was killed, most likely for lack of {memory}; "
        "set data.workers or data.batch_size lower."
    )


def start_worker(worker: int) -> None:
    """Leave signals to the main process, which stops workers when it has saved, but end when it is killed.

    A worker has the main process's connections: while it lives, other ranks do not notice that one is gone.
    """
    end_with_parent(getattr(signal, "SIGKILL", signal.SIGTERM))
    torch.set_num_threads(1)
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute as a worker does: the same sums in the same order.

    For a single image more threads only cost time, up to a thousand times more where other programs are busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
