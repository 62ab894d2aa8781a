"""A command as one of several processes that torchrun has started."""

import io
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from finetune.choices import DeviceName
from finetune.cli.app import display_for
from finetune.display import Display
from finetune.errors import ConfigError, FinetuneError, Interrupted
from finetune.machine.cores import usable_cores
from finetune.machine.hardware import has_gpu
from finetune.machine.launched import EXIT_CODES, launched
from finetune.text import counted

if TYPE_CHECKING:  # it takes torch
    from finetune.machine.ranks import Ranks


class RankOfCommand:
    """What a command does as one of several processes; entered, it sees to it that they end together."""

    def __init__(self) -> None:
        """Find out which of them this is.

        Raises:
            ConfigError: the environment says nothing possible.
        """
        self._one = launched()
        self._ranks: Ranks | None = None
        self._has_tried = False
        if self._one is not None:
            # torch, which reads it as it is imported, would add frames of C++ to errors
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes; one that works alone does."""
        return self._one is None or self._one.rank == 0

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
        from finetune.machine.meeting import start_ranks
        from finetune.machine.ranks import ALONE

        if self._one is None:
            return ALONE
        self._has_tried = True
        self._ranks = start_ranks(self._one, device)
        return self._ranks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._one is None:
            return
        code, text = _end_of(error)
        if folder := os.environ.get(EXIT_CODES):
            with suppress(OSError):
                (Path(folder) / str(self._one.rank)).write_text(str(code))
        if error is not None and self._ranks is None and not self._has_tried:
            from finetune.machine.meeting import start_ranks

            with suppress(FinetuneError):  # the others cannot be reached either
                self._ranks = start_ranks(self._one, None)
        if self._ranks is None:
            return
        from finetune.machine.meeting import end_ranks

        said = end_ranks(self._ranks, code, text, error)
        if self.is_first or error is None:
            return
        if said and isinstance(error, FinetuneError | KeyboardInterrupt):  # a bug of ours shows where it is
            raise typer.Exit(code) from None
        if isinstance(error, FinetuneError):
            raise type(error)(f"rank {self._one.rank}: {error}") from None


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
