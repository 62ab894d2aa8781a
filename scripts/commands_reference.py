"""Write every command with its arguments and options as Markdown, from the program itself."""

import typer

from finetune.cli import MODULES, load_app


def commands_reference() -> str:
    """Return a section for each command, in the order in which `finetune --help` lists them."""
    group = typer.main.get_group(load_app())
    return "\n".join(_section(group.commands[name]) for names in MODULES.values() for name in names)


def _section(command: typer.core.TyperCommand) -> str:
    context = command.context_class(command, info_name=f"finetune {command.name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [f"| `{_cell(name)}` | {_cell(text)} |\n" for name, text in filter(None, records)]
    table = f"| | |\n|---|---|\n{''.join(rows)}" if rows else ""
    return f"## {command.name}\n\n{command.help}\n\n```text\n{usage}\n```\n\n{table}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
