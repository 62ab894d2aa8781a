"""Start ranks of a training as processes that have loaded torch already: a fork of one that only waits."""

import atexit
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from finetune.__main__ import main
from finetune.machine import meeting

_LOADED = ["finetune.cli.training", "finetune.commands.train.follow", "finetune.training.loop"]


@dataclass
class Rank:
    """What one rank is started with; what all have alike, such as the port, comes with `start_ranks`."""

    arguments: list[str]
    folder: Path
    """Where it is started: another one for each machine."""
    libraries: Path | None = None
    """Where Python looks for packages first."""
    memory: int | None = None
    """How many more bytes it may have than it has when it begins."""
    patience: float | None = None
    """Seconds that it waits for the others at the start."""


class Started:
    """Ranks that run, and in the end what each of them said and ended with."""

    def __init__(self, ranks, folder, port):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LOADED)
        os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # as a rank sets it, before it imports torch
        self._outputs = [folder / f"rank-{number}-of-{len(ranks)}.txt" for number in range(len(ranks))]
        self.processes = [
            context.Process(target=_run, args=(rank, number, len(ranks), port, output))
            for number, (rank, output) in enumerate(zip(ranks, self._outputs, strict=True))
        ]
        for process in self.processes:
            process.start()

    def end(self, within=60):
        """Wait for all; return each one's exit code and what it printed."""
        last = time.monotonic() + within
        for process in self.processes:
            process.join(max(0, last - time.monotonic()))
        running = [process for process in self.processes if process.is_alive()]
        for process in running:
            process.kill()
            process.join()
        assert not running, f"{len(running)} ranks ran on: {[path.read_text() for path in self._outputs]}"
        assert not self.left(), "a process of theirs was left behind"
        return [
            (process.exitcode, path.read_text())
            for process, path in zip(self.processes, self._outputs, strict=True)
        ]

    def left(self):
        """Return the processes that the ranks have started and left behind."""
        sessions = {process.pid for process in self.processes}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[3]) in sessions and fields[0] != "Z":
                found.append(int(folder.name))
        return found


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _run(rank, number, size, port, output):
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # loader workers are its own children, as ever
    for name in ("SIGINT", "SIGTERM", "SIGCHLD"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    if size > 1:
        os.environ |= {
            "RANK": str(number),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
        }
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"XDG_CACHE_HOME": str(rank.folder / "cache")}
    os.chdir(rank.folder)
    if rank.libraries is not None:
        sys.path.insert(0, str(rank.libraries))
    if rank.memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + rank.memory,) * 2)
    if rank.patience is not None:
        meeting._PATIENCE_AT_START = timedelta(seconds=rank.patience)
        meeting._SLACK = timedelta(seconds=1)

    sys.argv = ["finetune", *rank.arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing passes over what is to be done at exit
        sys.stdout.flush()
        sys.stderr.flush()
