"""A command as one of several processes that torchrun has started."""

import io
import os
from contextlib import suppress
from pathlib import Path
from traceback import clear_frames
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from finetune.choices import DeviceName
from finetune.cli.app import display_for
from finetune.display import Display
from finetune.errors import ConfigError, FinetuneError, Interrupted, MachineError
from finetune.machine.cores import usable_cores
from finetune.machine.hardware import has_gpu
from finetune.machine.launched import EXIT_CODES, launched
from finetune.machine.memory import out_of_memory
from finetune.text import counted

if TYPE_CHECKING:  # the first takes torch, and both are for processes that train with others
    from finetune.machine.presence import Presence
    from finetune.machine.ranks import Ranks


class RankOfCommand:
    """What a command does as one of several processes; entered, it sees to it that they end together."""

    def __init__(self) -> None:
        """Find out which of them this is.

        Raises:
            ConfigError: the environment says nothing possible.
        """
        self._presence = _presence()
        self._ranks: Ranks | None = None
        if self._presence is not None:
            # torch, which reads it as it is imported, would add frames of C++ to errors
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes; one that works alone does."""
        return self._presence is None or self._presence.one.rank == 0

    def display(self, stdout_has_data: bool, *, quiet: bool) -> Display:
        """Return the display for what people read; nobody sees what other ranks than the first show."""
        return (
            display_for(stdout_has_data, quiet=quiet) if self.is_first else Display(io.StringIO(), quiet=True)
        )

    def meet(self, device: DeviceName) -> "Ranks":
        """Meet the other processes.

        Raises:
            FinetuneError: they cannot be reached, or one has failed.
        """
        from finetune.machine.meeting import join_ranks, meet
        from finetune.machine.ranks import ALONE

        if self._presence is None:
            return ALONE
        self._ranks = join_ranks(self._presence, device)
        meet(self._ranks, device, self._presence)
        return self._ranks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._presence is None:
            return
        rank = self._presence.one.rank
        found = _reason_of(error, self._presence if self._ranks is None else None)
        code, text = _end_of(found)
        if folder := os.environ.get(EXIT_CODES):
            with suppress(OSError):
                (Path(folder) / str(rank)).write_text(str(code))
        if error is not None and self._ranks is None and not isinstance(error, MachineError):
            self._ranks = _join_to_tell(self._presence, error)
        said = False
        if self._ranks is not None:
            from finetune.machine.meeting import end_ranks

            said = end_ranks(self._ranks, code, text, error)
        if self._ranks is not None or isinstance(found, MachineError):  # of the port each tells by itself
            self._presence.leave()
        if said and isinstance(found, FinetuneError | KeyboardInterrupt):
            raise typer.Exit(code) from None  # a bug of ours shows where it is
        if not isinstance(found, FinetuneError):
            return
        if self.is_first and found is not error:
            raise found from None
        if not self.is_first and self._ranks is not None:
            raise type(found)(f"rank {rank}: {found}") from None


def _presence() -> "Presence | None":
    """Let the other processes of a training on this machine see this one; None where it trains alone."""
    one = launched()
    if one is None:
        return None
    from finetune.machine.presence import Presence

    return Presence(one)


def _reason_of(error: BaseException | None, presence: "Presence | None") -> BaseException | None:
    """Return what is to be said of an error: of a signal of the launcher, which rank it came for.

    `presence` is that of a rank which has not met the others yet.
    """
    if isinstance(error, KeyboardInterrupt) and presence is not None:
        from finetune.machine.presence import silent_end

        gone = presence.gone(settled=0)
        return silent_end(gone) if gone else error
    return error and (out_of_memory(error) or error)


def _join_to_tell(presence: "Presence", error: BaseException) -> "Ranks | None":
    """Connect to the others only to say that this one has failed; None where that cannot be."""
    clear_frames(error.__traceback__)  # it may lack the memory that what failed has taken
    with suppress(FinetuneError, MemoryError, OSError, RuntimeError):
        from finetune.machine.meeting import join_ranks

        return join_ranks(presence, None)
    return None


def _end_of(error: BaseException | None) -> tuple[int, str]:
    """Return the exit code of a command that an error ends, and the text of the error."""
    match error:
        case None:
            return 0, ""
        case FinetuneError():
            return error.exit_code, str(error)
        case typer.Exit():
            return error.exit_code, ""
        case KeyboardInterrupt():
            return Interrupted.exit_code, "interrupted"
        case _:
            return 1, f"{type(error).__name__}: {error}"


def train_on(devices: int, arguments: list[str], *, quiet: bool, as_json: bool) -> int:
    """Start the processes of a training with these arguments of the command line; return the exit code.

    Raises:
        ConfigError: a number of processes that cannot be.
    """
    if devices < 1:
        raise ConfigError(f"--devices {devices}: there has to be at least one.\nLeave it out for one.")
    if launched() is not None:
        raise ConfigError("--devices starts processes, as torchrun does.\nUse one of the two.")
    if devices > (cores := usable_cores()) and not has_gpu():
        raise ConfigError(
            f"--devices {devices}: this machine has no GPU, and {counted(cores, 'core')} for this process.\n"
            f"Set it to {cores} or less; with more, processes only wait for each other."
        )
    from finetune.machine.launch import launch

    shown = [flag for flag, wanted in (("--quiet", quiet), ("--json", as_json)) if wanted]
    return launch(devices, [*arguments, *shown])
