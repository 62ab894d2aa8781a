"""What is wrong with a machine, each with how to fix it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.errors import MachineError, NotWritableError, ResourceError
from finetune.text import counted, shown_size

_LEAST_MEMORY, _LEAST_DISK, _LEAST_SHARED = 2 * 2**30, 2**30, 2**28


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong."""

    what: str
    fix: str
    exit_code: int = 0
    """what a training would end with; 0 where it would work"""


@dataclass(frozen=True)
class Place:
    """A folder that finetune, or a library, writes to."""

    what: str
    shown: str
    """where it is, without private names"""
    writable: bool
    free: int | None
    """bytes; None where the system does not tell"""
    needed: bool = False
    """whether training cannot do without it"""
    variable: str = ""
    """the environment variable that moves it"""


@dataclass(frozen=True)
class Resources:
    """What there is of cores, memory and disk; None where that is not known."""

    cores: int
    quota: float | None
    """cores' worth of time that the container may take"""
    threads: int | None
    """of torch on the CPU"""
    memory: int | None
    shared_memory: int | None
    """bytes that are free for loader processes to hand over batches"""


def troubles_of(resources: Resources, places: Sequence[Place]) -> Iterator[Trouble]:
    """Return what is wrong with cores, memory and folders."""
    allowed = min(resources.cores, resources.quota or resources.cores)
    if resources.threads is not None and resources.threads > max(1, round(allowed + 0.49)):
        yield Trouble(
            f"torch computes in {counted(resources.threads, 'thread')}, and this process has the time of "
            f"{allowed:g} cores: they wait for each other.",
            f"Set the environment variable OMP_NUM_THREADS={max(1, int(allowed))}.",
        )
    if resources.memory is not None and resources.memory < _LEAST_MEMORY:
        yield Trouble(
            f"{shown_size(resources.memory)} of memory is little: PyTorch alone takes about half a gigabyte.",
            "Set data.batch_size and data.image_size low, or give the container more memory.",
        )
    if (
        resources.shared_memory is not None
        and resources.shared_memory < _LEAST_SHARED
        and resources.cores > 2
    ):
        yield Trouble(
            f"{shown_size(resources.shared_memory)} of shared memory (/dev/shm) is free: few processes can "
            "load images beside the training.",
            "Give the container more (docker run --shm-size=8g), or set data.workers=0.",
        )
    for place in places:
        yield from _of_place(place)


def _of_place(place: Place) -> Iterator[Trouble]:
    move = f"set the environment variable {place.variable}" if place.variable else "name another --run-dir"
    if not place.writable:
        code = NotWritableError.exit_code if place.needed else 0
        loss = "" if place.needed else "; what is kept there is lost each time"
        yield Trouble(
            f"{place.what} cannot be written: {place.shown}{loss}.",
            f"Make the folder yours, or {move}.",
            code,
        )
    elif place.free is not None and place.free < _LEAST_DISK:
        code = ResourceError.exit_code if place.needed and place.free < _LEAST_DISK // 10 else 0
        yield Trouble(
            f"{place.what} has {shown_size(place.free)} of disk left: {place.shown}.",
            f"Free some, or {move}.",
            code,
        )


def broken_library(name: str, error: BaseException) -> Trouble:
    """Return what is wrong where a library cannot be imported."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return Trouble(
        f"{name} is installed, and cannot be imported: {first}",
        "Install versions that belong together: pip install --upgrade --force-reinstall torch torchvision",
        MachineError.exit_code,
    )


def unmet(name: str, required: str, found: str) -> Trouble:
    """Return what is wrong where another version of a library is installed than finetune was made for."""
    return Trouble(
        f"{name} {found} is not {required}, which finetune needs."
        if found
        else f"{name} is not installed, and finetune needs it ({required}).",
        f"Install it: pip install '{required}'",
        MachineError.exit_code,
    )
