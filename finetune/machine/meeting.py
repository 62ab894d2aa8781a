"""How the processes of a training meet, and how they end together."""

import gc
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from finetune.choices import DeviceName
from finetune.errors import ConfigError, Interrupted, MachineError, Stopped
from finetune.machine.memory import out_of_memory
from finetune.machine.presence import Presence, silent_end
from finetune.machine.ranks import LAST_WORDS, Line, Ranks, first_line, ignore_signals, note_of
from finetune.machine.signals import end_with_parent
from finetune.machine.watch import ANY_END, Watch, in_thread

PATIENCE = timedelta(hours=1)
"""how long a rank waits for the others where they meet: a scan of very many images takes long"""

_PATIENCE_AT_START = timedelta(minutes=5)
_SLACK = timedelta(seconds=5)


def join_ranks(presence: Presence, device: DeviceName | None) -> Ranks:
    """Connect to the other processes of a training.

    Args:
        presence: which of them this is, and what its machine knows of the others until they have met.
        device: where it is to compute; None for a process that has failed, and only lets the others know.

    Raises:
        MachineError: the others cannot be reached.
        ResourceError: rank 0 has ended, or there is no memory.
    """
    end_with_parent(signal.SIGTERM)
    one = presence.one
    with _reported(one.rank):
        job = _connect(presence)
        # torchrun's store outlives a restart, and with it what the ranks have left there before.
        store = PrefixStore(f"{_job_name()} restart {one.restarts}", job)
        store.set(f"ready/{one.rank}", device or "")
    return Ranks(one.rank, one.size, one.local_rank, one.local_size, one.restarts, Line(store, job))


def meet(ranks: Ranks, device: DeviceName, presence: Presence) -> None:
    """Wait for the others, and begin to compute together.

    Raises:
        ConfigError: a device that one process has to itself, or another one than others have.
        MachineError: the others have not come.
        FinetuneError: another process has failed.
    """
    with _reported(ranks.rank):
        Watch(ranks, presence).wait_for_all(_PATIENCE_AT_START.total_seconds())
        _meet(ranks, presence, device)


@contextmanager
def _reported(rank: int) -> Iterator[None]:
    """Say where the others were looked for, if that fails."""
    try:
        yield
    except (RuntimeError, ValueError, TimeoutError) as error:
        if known := out_of_memory(error):
            raise known from None
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise MachineError(
            f"rank {rank} cannot reach the others at {where}: {first_line(error)}\n"
            "If another training has this port, name a free one: torchrun --master-port PORT."
        ) from None


def _connect(presence: Presence) -> Any:
    """Return the store at the address that the environment names.

    Raises:
        RuntimeError: nobody answers there, or rank 0 cannot have the port.
        ResourceError: rank 0, which would answer, has ended.
    """

    def connect() -> Any:
        if presence.one.rank > 0 or _has_store_of_torchrun():
            return next(rendezvous("env://", timeout=_PATIENCE_AT_START))[0]
        # That of `rendezvous` waits until all are connected, and sees nobody's note meanwhile.
        return dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            presence.one.size,
            is_master=True,
            timeout=_PATIENCE_AT_START,
            wait_for_workers=False,
            multi_tenant=True,
        )

    def look() -> None:
        if 0 in presence.gone():
            raise silent_end([0])

    try:
        return in_thread(connect, look, (_PATIENCE_AT_START + _SLACK).total_seconds())
    except TimeoutError:
        raise RuntimeError("what listens there does not answer as rank 0 would") from None


def _has_store_of_torchrun() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _job_name() -> str:
    """Return what tells this job's notes from those of another one whose rank 0 has the same port."""
    return os.environ.get("TORCHELASTIC_RUN_ID") or os.environ.get("SLURM_JOB_ID") or "job"


def _meet(ranks: Ranks, presence: Presence, device: DeviceName) -> None:
    assert ranks.line is not None
    store, watch = ranks.line.store, Watch(ranks, presence)
    ready = [store.get(f"ready/{rank}").decode() for rank in range(ranks.size)]
    if "" in ready:
        ranks.report(RuntimeError("they have not met"))
    if len(set(ready)) > 1:
        other = next(rank for rank, one in enumerate(ready) if one != ready[0])
        raise ConfigError(
            f"rank {other} has device={ready[other]}, rank 0 {ready[0]}.\nStart all with the same."
        )
    if device == "mps":
        raise ConfigError("device: one process alone can use Apple's GPU.\nTrain on one device, or the CPU.")
    with_gpus = device != "cpu" and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
    own = store.clone()  # one that waits for an answer keeps others from asking

    def first_meeting() -> None:
        dist.init_process_group(backend, store=own, rank=ranks.rank, world_size=ranks.size, timeout=PATIENCE)
        ranks.largest(0)

    try:
        in_thread(first_meeting, watch.look, PATIENCE.total_seconds())
    except RuntimeError as error:
        ranks.report(error)
    store.set(f"met/{ranks.rank}", "")
    presence.leave()


def end_ranks(ranks: Ranks, code: int, text: str, error: BaseException | None) -> bool:
    """Leave a note for the others, and wait until rank 0 is done: torchrun ends all when one has failed.

    Return whether rank 0 says the same.

    Args:
        ranks: the processes, and which of them this is.
        code: the exit code with which it ends.
        text: what it says.
        error: what ends it, if anything.
    """
    assert ranks.line is not None
    store, relayed = ranks.line.store, ranks.line.relayed
    with suppress(RuntimeError):
        note = {"code": code, "text": text, "relayed": relayed, "lost": ranks.line.lost}
        store.set(f"end/{ranks.rank}", json.dumps(note))
        store.set(ANY_END, "")
    ignore_signals()
    with suppress(RuntimeError, AssertionError):
        dist.destroy_process_group()
    # Those who wait for this rank notice it when its connections close. What was under way may hold these,
    # and so do its children.
    if error is not None:
        _kill_children()
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
    gc.collect()
    if ranks.is_first:
        _wait_for_others(ranks)
        return False
    said = bool(code) and 0 not in ranks.line.lost and _first_says(ranks, code, text)
    with suppress(RuntimeError):
        store.set(f"gone/{ranks.rank}", "")
    return said


def _kill_children() -> None:
    """End what loads images for this process, for which torch would wait 10 s each."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # at which torch raises that a worker was killed
    for child in multiprocessing.active_children():
        child.kill()


def _first_says(ranks: Ranks, code: int, text: str) -> bool:
    """Wait for the note of rank 0; return whether it says what this rank would."""
    assert ranks.line is not None
    store, relayed = ranks.line.store, ranks.line.relayed
    began = time.monotonic()
    with suppress(RuntimeError):
        while time.monotonic() - began < 3 * LAST_WORDS:
            if (note := note_of(store, 0)) is not None:
                stopped = code == note["code"] in (Stopped.exit_code, Interrupted.exit_code)
                return relayed or stopped or note["text"] in (text, f"rank {ranks.rank}: {text}")
            time.sleep(0.05)
    return False


def _wait_for_others(ranks: Ranks) -> None:
    """Keep the store until the others have read there why they end; that of torchrun outlives rank 0."""
    assert ranks.line is not None
    if _has_store_of_torchrun():
        return
    store, began = ranks.line.store, time.monotonic()
    with suppress(RuntimeError):
        left = [f"gone/{rank}" for rank in range(1, ranks.size) if rank not in ranks.line.lost]
        while left and time.monotonic() - began < 3 * LAST_WORDS:
            left = [key for key in left if not store.check([key])]
            time.sleep(0.05)
