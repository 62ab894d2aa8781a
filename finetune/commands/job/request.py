"""What a job asks the cluster for, and in which container it runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.choices import ContainerEngine
from finetune.errors import ConfigError

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")
_MEMORY = re.compile(r"(\d+)([KMGT])", re.IGNORECASE)
_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LATE = 60  # seconds: Slurm may send the signal that much earlier than asked, says its manual


@dataclass(frozen=True)
class Container:
    """The image in which the trainings run."""

    image: str
    engine: ContainerEngine | None = None
    """what runs it on a Slurm cluster; None for apptainer"""

    @classmethod
    def of(cls, image: str | None, engine: ContainerEngine | None) -> "Container | None":
        """Return the container that options describe; None without an image.

        Raises:
            ConfigError: an engine without an image.
        """
        if image is not None:
            return cls(image, engine)
        if engine is not None:
            raise ConfigError(
                f"--engine {engine} runs a container image.\nName it with --image, or leave it out."
            )
        return None


@dataclass(frozen=True)
class Request:
    """What a job asks for.

    Raises:
        ConfigError: what cannot be.
    """

    gpus: int = 1
    """of each node; 0 trains on the CPU"""
    cpus: int = 8
    """for each GPU, or for the node where there is none"""
    memory: str = "32G"
    """of each node; K, M, G and T are powers of 1024"""
    nodes: int = 1
    time: str | None = None
    """how long one start may take, as Slurm reads it: `90` (minutes), `4:00:00`, `2-12`; None for as long as
    the cluster allows"""
    notice: int = 180
    """seconds between the signal and the end: a step, which may take 25 s, and a checkpoint have to fit"""
    restarts: int = 50
    """how often it is started again at the most"""
    at_once: int | None = None
    """how many of several trainings may run at a time; None for all"""
    container: Container | None = None
    directives: tuple[str, ...] = ()
    """further options of sbatch, such as `partition=gpu`"""
    workers: int | None = None
    """of a sweep: how many jobs train its trials; None for one"""

    def __post_init__(self) -> None:
        self.bytes_of_memory()  # whoever makes a request hears of its mistakes
        if self.time is not None and self.seconds() <= self.notice + _LATE:
            raise ConfigError(
                f"--time {self.time}: the job is told {self.notice} s before its end, or {_LATE} s earlier "
                "still, so nothing is left for training.\nSet --time higher or --notice lower."
            )
        for directive in self.directives:
            if not re.fullmatch(r"[a-z][a-z-]*(=[^\n\r]+)?", directive):
                raise ConfigError(
                    f"--sbatch {directive!r}: expected an option of sbatch without its dashes.\n"
                    "For instance: --sbatch partition=gpu"
                )

    @property
    def ranks(self) -> int:
        """Return how many processes one training has: one for each GPU, or for each node without."""
        return self.nodes * self.processes

    @property
    def processes(self) -> int:
        """Return how many processes of a training one node has."""
        return max(self.gpus, 1)

    def seconds(self) -> int:
        """Return the longest that the job may take, in seconds; 0 without a limit.

        Raises:
            ConfigError: no time that Slurm reads.
        """
        if self.time is None:
            return 0
        found = _TIME.fullmatch(self.time)
        if found is None:
            raise ConfigError(
                f"--time {self.time!r}: expected minutes, H:MM:SS or D-HH:MM:SS, such as 4:00:00."
            )
        fields = [int(field) for field in found["fields"].split(":")]
        if found["days"]:  # days-hours, then smaller units
            hours, minutes, seconds = [*fields, 0, 0][:3]
        elif len(fields) == 3:
            hours, minutes, seconds = fields
        else:  # minutes, or minutes:seconds
            hours, (minutes, seconds) = 0, [*fields, 0][:2]
        return ((int(found["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    def bytes_of_memory(self) -> int:
        """Return the memory of a node in bytes.

        Raises:
            ConfigError: no size.
        """
        found = _MEMORY.fullmatch(self.memory)
        if found is None or not int(found[1]):
            raise ConfigError(f"--memory {self.memory!r}: expected a size such as 32G or 500M.")
        return int(found[1]) * _BYTES[found[2].upper()]


def read_seeds(written: str | None) -> Sequence[int]:
    """Read seeds such as `1,2,3` or `0-9`; none where nothing is written.

    Raises:
        ConfigError: something else, or one of them twice.
    """
    seeds: list[int] = []
    for part in written.split(",") if written is not None else ():
        found = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last - first >= 10_000:
            raise ConfigError(f"--seeds {written!r}: expected numbers such as 1,2,3 or 0-9.")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {written!r}: a seed stands there twice; its trainings would be the same.")
    return seeds
