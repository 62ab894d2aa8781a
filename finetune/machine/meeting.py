"""How the processes of a training meet, and how they end together."""

import gc
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from ctypes import CDLL
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from finetune.choices import DeviceName
from finetune.errors import ConfigError, Interrupted, MachineError, Stopped
from finetune.machine.launched import Launched
from finetune.machine.ranks import LAST_WORDS, Line, Ranks, first_line, ignore_signals, note_of

PATIENCE = timedelta(hours=1)
"""how long a rank waits for the others where they meet: a scan of very many images takes long"""

_PATIENCE_AT_START = timedelta(minutes=5)


def start_ranks(one: Launched, device: DeviceName | None) -> Ranks:
    """Meet the other processes of a training.

    Args:
        one: which of them this is.
        device: where it is to compute; None for a process that has failed, and only lets the others know.

    Raises:
        ConfigError: a device that one process has to itself, or another one than others have.
        MachineError: the others cannot be reached.
        FinetuneError: another process has failed.
    """
    _end_with_launcher()
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        job, rank, size = next(rendezvous("env://", timeout=_PATIENCE_AT_START))
        # torchrun's store outlives a restart, and with it what the ranks have left there before.
        store = PrefixStore(f"restart {one.restarts}", job)
        ranks = Ranks(rank, size, one.local_rank, one.local_size, one.restarts, Line(store, job))
        store.set(f"ready/{rank}", device or "")
        if device is not None:
            _meet(ranks, store, device)
    except (RuntimeError, ValueError) as error:
        raise MachineError(
            f"rank {one.rank} cannot reach the others at {where}: {first_line(error)}\n"
            "If another training has this port, name a free one: torchrun --master-port PORT."
        ) from None
    return ranks


def _meet(ranks: Ranks, store: Any, device: DeviceName) -> None:
    keys = [f"ready/{rank}" for rank in range(ranks.size)]
    store.wait(keys, _PATIENCE_AT_START)
    ready = [store.get(key).decode() for key in keys]
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
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=PATIENCE)
    ranks.largest(0)


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
        store.set(f"end/{ranks.rank}", json.dumps({"code": code, "text": text, "relayed": relayed}))
    ignore_signals()
    with suppress(RuntimeError, AssertionError):
        dist.destroy_process_group()
    # Those who wait for this rank notice it when its connections close, which what was under way may hold.
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
    gc.collect()
    if ranks.is_first or not code or 0 in ranks.line.lost:
        return False
    began = time.monotonic()
    with suppress(RuntimeError):
        while time.monotonic() - began < 3 * LAST_WORDS:
            if (note := note_of(store, 0)) is not None:
                stopped = code == note["code"] in (Stopped.exit_code, Interrupted.exit_code)
                return relayed or stopped or note["text"] in (text, f"rank {ranks.rank}: {text}")
            time.sleep(0.05)
    return False


def _end_with_launcher() -> None:
    """Be asked to stop when what started this process ends, however it ends; Linux alone has this."""
    if sys.platform.startswith("linux"):
        set_parent_death_signal = 1
        CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
