"""The command line: parse arguments, call one story, print what it gives.

torch takes seconds to import, so each command imports its story itself; help and config errors come at once.
"""

import os
import sys

# In the order in which `finetune --help` lists them.
from finetune.cli import training, asking, choosing, using, serving, starting, upkeep  # isort: skip
from finetune.cli.app import app

__all__ = ["app", "asking", "choosing", "main", "serving", "starting", "training", "upkeep", "using"]


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
    # pydantic would read what every installed package says of itself, to look for plugins; we use none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    app()
