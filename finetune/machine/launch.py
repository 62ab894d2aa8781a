"""Start the processes of a training on this machine, with torchrun's own launcher."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from finetune.errors import Interrupted
from finetune.machine.cores import usable_cores
from finetune.machine.launched import EXIT_CODES
from finetune.machine.presence import silent_end


def launch(devices: int, arguments: Sequence[str]) -> int:
    """Run `python -m finetune` with some arguments in as many processes; return the exit code of rank 0.

    SIGINT, SIGTERM and SIGUSR1 are passed on to all of them. Each has its part of the cores, unless
    `OMP_NUM_THREADS` says how many threads it takes.

    Raises:
        ResourceError: one was killed, and no other has said so.
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
            rank, first = failure.get_first_failure()
            return _code_after(Path(folder), rank, first.exitcode)
        except SignalException:
            code = _exit_code(Path(folder))
            return Interrupted.exit_code if code is None else code
        return 0


def _code_after(folder: Path, rank: int, exitcode: int) -> int:
    """Return the exit code where a rank has ended first; `exitcode` is negative for a signal."""
    code = _exit_code(folder)
    killed = exitcode < 0 and exitcode not in (-signal.SIGINT, -signal.SIGTERM)
    # One that was interrupted in the midst of an import does not look what has become of the others.
    if killed and code in (None, Interrupted.exit_code):
        raise silent_end([rank]) from None
    return exitcode if code is None else code


def _exit_code(folder: Path) -> int | None:
    """Return the exit code that the first rank which could has left; None where none has."""
    for path in sorted(folder.iterdir(), key=lambda path: int(path.name)):
        with suppress(ValueError):
            return int(path.read_text())
    return None
