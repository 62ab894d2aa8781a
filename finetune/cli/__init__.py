"""The command line: parse arguments, call one story, print what it gives.

torch takes seconds to import, so each command imports its story itself; help and config errors come at once.
"""

import errno
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from finetune.imports import quick_imports

if TYPE_CHECKING:  # a Ctrl-C is heeded before typer is there
    from typer import Typer

MODULES = {
    "training": ("train", "lr-find", "groups", "check"),
    "asking": ("labels", "curve"),
    "choosing": ("rank", "auto"),
    "sweeping": ("sweep",),
    "using": ("evaluate", "report", "predict", "export"),
    "serving": ("serve",),
    "scheduling": ("job",),
    "starting": ("models", "optimizers", "init", "schema"),
    "upkeep": ("cache", "doctor", "runs", "compare"),
}
"""The commands by the module that has them, in the order in which `finetune --help` lists them."""

OPENMP_TURNS = "3000"
"""how often a thread of OpenMP looks whether the others are done, before it sleeps"""


def load_app(command: str = "") -> "Typer":
    """Return the application with one command and those of its module; with all, for what is no command.

    To make every command from its signature would take a third of the time in which a mistake in a config
    is found.
    """
    with quick_imports():
        for module in [name for name, commands in MODULES.items() if command in commands] or MODULES:
            import_module(f"finetune.cli.{module}")
        from finetune.cli.app import app

        if not any(command in commands for commands in MODULES.values()):
            from finetune.cli.plugins import add_plugins

            add_plugins()
    return app


def tell_libraries() -> None:
    """Set what libraries read from the environment as they are imported, where the user has not."""
    # pydantic would read what every installed package says of itself, to look for plugins; we use none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # The threads of GNU's OpenMP, which computes for torch on Linux, wait for each other in a loop of 300,000
    # turns before they sleep. Where another program has the core of the awaited one, that keeps both from it.
    # On quiet cores fewer turns cost a small network a little, and others nothing (`benchmarks/waiting.py`).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_TURNS)


def main() -> None:
    """Run the command line."""
    # Python has None for a stream that was closed before it started (`>&-`).
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    # Names of files may hold bytes that are no text; they must not break what we print.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    tell_libraries()
    app = load_app(*sys.argv[1:2])
    try:
        app()
    except OSError as error:  # of printing help, which no command does
        if error.errno != errno.ENOSPC:
            raise
        from finetune.errors import ResourceError
        from finetune.streams import discard

        discard(sys.stdout)
        print(f"error: {error.strerror}.\nPrint to another place, or make room there.", file=sys.stderr)
        sys.exit(ResourceError.exit_code)
