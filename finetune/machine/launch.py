"""Start the processes of a training on this machine, with torchrun's own launcher."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from finetune.errors import Interrupted, ResourceError
from finetune.machine.cores import usable_cores
from finetune.machine.launched import EXIT_CODES


def launch(devices: int, arguments: Sequence[str]) -> int:
    """Run `python -m finetune` with some arguments in as many processes; return the exit code of rank 0.

    SIGINT, SIGTERM and SIGUSR1 are passed on to all of them. Each has its part of the cores, unless
    `OMP_NUM_THREADS` says how many threads it takes.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # It logs in many lines what the processes say themselves in one.
    logging.disable()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // devices)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=f"finetune-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",  # a free port
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT,SIGUSR1" if hasattr(signal, "SIGUSR1") else "SIGTERM,SIGINT",
    )
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        os.environ[EXIT_CODES] = folder
        try:
            elastic_launch(config, sys.executable)("-m", "finetune", *arguments)
        except ChildFailedError as failure:
            return _exit_code(Path(folder), default=_of_killed(failure.get_first_failure()[1].exitcode))
        except SignalException:
            return _exit_code(Path(folder), default=Interrupted.exit_code)
        return 0


def _exit_code(folder: Path, default: int) -> int:
    """Return the exit code that the first rank which could has left."""
    for path in sorted(folder.iterdir(), key=lambda path: int(path.name)):
        with suppress(ValueError):
            return int(path.read_text())
    return default


def _of_killed(code: int) -> int:
    """Return the exit code for a process that a signal ended, which is most often for lack of memory."""
    return ResourceError.exit_code if code < 0 else code
