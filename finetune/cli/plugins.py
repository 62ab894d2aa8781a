"""Commands of other packages."""

import functools
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.main import get_command

from finetune.cli.app import app, reported_errors
from finetune.errors import ConfigError
from finetune.plugins import FAULTS, installed, load, package_of


def add_plugins() -> None:
    """Add the commands that installed packages have; one that is broken is named, and left out."""
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    for point in installed("finetune.commands"):
        if point.name in known:
            continue
        try:
            _add(point)
        except ConfigError as error:
            print(f"warning: the command {error}", file=sys.stderr)


def _add(point: EntryPoint) -> None:
    """Add a command, or an application of several commands below one name.

    Raises:
        ConfigError: it cannot be loaded, or typer can make no command of it.
    """
    loaded = load(point)
    several = loaded if isinstance(loaded, typer.Typer) else None
    alone = typer.Typer()
    try:
        if several is None:
            if not callable(loaded):
                raise TypeError(f"{loaded!r} is no function")
            alone.command(point.name)(_reporting(loaded))
        get_command(alone if several is None else several)  # here it fails by itself, and not with all others
    except FAULTS as error:
        package = package_of(point)
        raise ConfigError(
            f"{point.name} of the package {package} is no command ({point.value}): {error}\n"
            f"Repair the package, or: pip uninstall {package}"
        ) from error
    if several is None:
        app.registered_commands += alone.registered_commands
        return
    for command in several.registered_commands:
        command.callback = _reporting(command.callback) if command.callback else None
    app.add_typer(several, name=point.name)


def _reporting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let the errors that a user can mend end a command as they end ours: with two lines and a code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        with reported_errors():
            command(*arguments, **options)

    return run
