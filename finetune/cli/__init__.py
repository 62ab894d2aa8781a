"""The command line: parse arguments, call one story, print what it gives.

torch takes seconds to import, so each command imports its story itself; help and config errors come at once.
"""

import sys

# In the order in which `finetune --help` lists them.
from finetune.cli import training, using, starting  # isort: skip
from finetune.cli.app import app

__all__ = ["app", "main", "starting", "training", "using"]


def main() -> None:
    """Run the command line."""
    # Names of files may hold bytes that are no text; they must not break what we print.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
