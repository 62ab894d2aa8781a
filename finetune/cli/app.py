"""The application, and what its commands share: options, errors, and where output goes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import isdir
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

import typer

from finetune.display import Display
from finetune.errors import (
    ConfigError,
    FinetuneError,
    Interrupted,
    InvalidConfigError,
    ResourceError,
    Stopped,
)
from finetune.machine.files import try_writing
from finetune.machine.hardware import whole_process
from finetune.machine.launched import launched
from finetune.machine.memory import reported_memory_errors
from finetune.machine.signals import heeding_interrupts
from finetune.streams import discard
from finetune.text import printable, without_long_words
from finetune.version import VERSION

app = typer.Typer(
    name="finetune",
    help="Transfer learning on images from one YAML file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a bug, 2 usage or config, 3 data, 4 training diverged, 5 damaged files, "
    "6 memory or disk, 7 device, network or weights, 8 run directory or no permission to write, "
    "75 stopped, can be resumed, 130 interrupted.",
)


@app.callback(invoke_without_command=True)
def _before_a_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        with reported_errors():
            print_result(f"finetune {VERSION}")
        raise typer.Exit
    if context.invoked_subcommand != "train":  # what another command does is done once
        with reported_errors():
            one = launched()
        if one is not None and one.rank > 0:
            raise typer.Exit


_displays: list[Display] = []
"""what the command that runs prints its result with"""


@contextmanager
def reported_errors(*, prints_a_log: bool = False) -> Iterator[None]:
    """Turn a user's mistake into a line on stderr and an exit code; a bug of ours shows its traceback.

    What a command prints must arrive, unless it is a log, and the result is kept elsewhere.
    """
    _displays.clear()
    try:
        with whole_process(), heeding_interrupts(), reported_memory_errors():
            yield
            if not prints_a_log:
                _check_printed()
    except FinetuneError as error:
        wanted = isinstance(error, Stopped | Interrupted)
        text = without_long_words(printable(str(error), keep="\n"))
        # What stands below the first line is advice, except where each line is a mistake of its own.
        text = text.replace("\n", "\nerror: ") if isinstance(error, InvalidConfigError) else text
        text = text if wanted else f"error: {text}"
        if sys.stderr is not None and sys.stderr.isatty():
            from finetune.layout import wrap_text

            text = wrap_text(text, get_terminal_size().columns)
        print(text, file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(Interrupted.exit_code) from None
    except BrokenPipeError:
        # Whoever read our output has seen enough. Keep Python from complaining again at its exit.
        discard(sys.stdout)
        raise typer.Exit(0) from None


def _check_printed() -> None:
    """Raise a ResourceError where the disk was full, for instance, to which a result was printed."""
    for display in _displays:
        if display.lost is not None:
            raise unprintable(display.lost)


def print_result(text: str, *, end: str = "\n") -> None:
    """Print what a command was run for; unlike a log, it must arrive.

    Raises:
        ResourceError: the disk is full, for instance.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(sys.stdout)
        raise unprintable(error) from None


def unprintable(error: OSError) -> ResourceError:
    """Return what is said where a result was not printed."""
    return ResourceError(
        f"The result could not be printed: {error.strerror}.\n"
        "The command itself is complete, and a run that it trained is done; print to another place."
    )


def display_for(stdout_has_data: bool, *, quiet: bool = False) -> Display:
    """Return the display for what people read: stderr where stdout carries data; `quiet` shows warnings."""
    display = Display(sys.stderr if stdout_has_data else sys.stdout, quiet=quiet)
    if not stdout_has_data:
        _displays.append(display)
    return display


def check_plot_path(path: Path | None) -> None:
    """Refuse a file for a plot that cannot be written, before anything is computed.

    Raises:
        ConfigError: another ending than .png, no such folder, or a folder itself.
        ResourceError: the system refuses to write there.
    """
    if path is not None and path.suffix.lower() != ".png":
        raise ConfigError(f"--plot {path}: the plot is a PNG picture; name a file that ends in .png.")
    check_output_path("--plot", path)


def check_output_path(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    Raises:
        ConfigError: no such folder, or a folder itself.
        ResourceError: the system refuses to write there.
    """
    if path is None:
        return
    if isdir(path):
        raise ConfigError(f"{option} {path}: this is a folder; name a file in it.")
    if not isdir(path.parent):
        raise ConfigError(f"{option} {path}: there is no folder {path.parent}.")
    try_writing(path)
