"""Keys of a config on the command line: a hint where one was given as an option."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand


class ConfigCommand(TyperCommand):
    """A command that takes a config and `key=value`; `--epochs 3` gets a hint at the key."""

    # The types are those of typer's own copy of click in newer releases, and of click itself in older ones.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an option that is none, but a key of the config; leave all else to typer."""
        own = {option for parameter in self.params for option in parameter.opts} | {"--help"}
        for number, argument in enumerate(args):
            option, equals, value = argument.partition("=")
            if option == "--":
                break
            if option.startswith("--") and option not in own:
                given = value if equals else next(iter(args[number + 1 : number + 2]), "")
                if hint := key_hint(option, given, args):
                    ctx.fail(f"No such option: {option}. {hint}")
        return super().parse_args(ctx, args)


def key_hint(option: str, value: str, arguments: Sequence[str]) -> str:
    """Return how to set the key that an option such as `--epochs` was meant for; "" if there is none."""
    from finetune.config.config import Config
    from finetune.config.keys import keys_called

    keys = keys_called(Config, option.removeprefix("--"))
    if not keys:
        return ""
    stage = stage_names(arguments)[0] if any("NAME" in key for key in keys) else ""
    shown = value if value and not value.startswith("-") else "VALUE"
    written = " or ".join(f"{key.replace('NAME', stage)}={shown}" for key in keys)
    return f"A key of the config is set without dashes: {written}"


def stage_names(arguments: Sequence[str]) -> list[str]:
    """Return the names of the stages of the config among the arguments, else of the default ones."""
    from finetune.config.load import load_config
    from finetune.config.overrides import unnamed_stages
    from finetune.errors import ConfigError

    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            try:
                return load_config(Path(argument)).stage_names
            except ConfigError:
                break
    return [stage.name for stage in unnamed_stages({})]
