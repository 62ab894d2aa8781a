"""Commands of other packages."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from finetune.cli.app import app, reported_errors
from finetune.errors import ConfigError
from finetune.plugins import installed, load


def add_plugins() -> None:
    """Add the commands that installed packages have; one that is broken is named, and left out."""
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    for point in installed("finetune.commands"):
        if point.name in known:
            continue
        try:
            app.command(point.name)(_reporting(load(point)))
        except ConfigError as error:
            print(f"warning: the command {error}", file=sys.stderr)


def _reporting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let the errors that a user can mend end a command as they end ours: with two lines and a code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        with reported_errors():
            command(*arguments, **options)

    return run
