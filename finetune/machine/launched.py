"""What torchrun tells each of the processes that it starts; without torch, which takes seconds to import."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from finetune.errors import ConfigError

EXIT_CODES = "FINETUNE_EXIT_CODES"
"""Environment variable: the folder in which each process leaves its exit code, for what started it."""

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launched:
    """One of several processes that train together."""

    rank: int
    """Number of this process, from 0."""
    size: int
    """Number of all processes."""
    local_rank: int
    """Number of this process on its machine."""
    local_size: int
    """Number of the processes on its machine."""
    restarts: int
    """How often torchrun has started all of them again."""


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """Return which of several processes this is; None for a process that works alone.

    Raises:
        ConfigError: the variables that say so are no numbers.
    """
    if any(not environment.get(name) for name in _NEEDED):
        return None
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        one = Launched(
            rank,
            size,
            local_rank=int(environment.get("LOCAL_RANK", rank)),
            local_size=int(environment.get("LOCAL_WORLD_SIZE", size)),
            restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
        )
        valid = 0 <= rank < size
    except ValueError:
        valid = False
    if not valid:
        given = ", ".join(f"{name}={environment[name]}" for name in ("RANK", "WORLD_SIZE"))
        raise ConfigError(
            f"The environment names no process of a training: {given}.\n"
            "Let torchrun start the processes, or unset these variables."
        )
    return one if size > 1 else None
