"""What a shell completes: keys of a config, stages, architectures and runs; files it completes by itself."""

import os
from pathlib import Path

import typer

from finetune.cli.keys import stage_names


def complete_keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the keys that begin so, each with its `=`; and after `model.arch=` the architectures."""
    from finetune.config.config import Config
    from finetune.config.keys import all_keys

    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={name}" for name in complete_architectures(value)] if key == "model.arch" else []
    keys = all_keys(Config)
    of_stages = [item.partition("NAME.")[2] for item in keys if "NAME." in item]
    keys = [item for item in keys if "NAME." not in item]
    keys += [f"stages.{stage}.{item}" for stage in stage_names(_config(ctx)) for item in of_stages]
    return [f"{item}=" for item in keys if item.startswith(key)]


def complete_stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of stages that begin so."""
    return [name for name in stage_names(_config(ctx)) if name.startswith(incomplete)]


def complete_architectures(incomplete: str) -> list[str]:
    """Return the architectures that begin so."""
    from finetune.model.catalogue import architectures

    return [architecture.name for architecture in architectures(f"{incomplete}*")]


def complete_architectures_and_keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the architectures that begin so, and the keys."""
    return [*complete_architectures(incomplete), *complete_keys(ctx, incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    """Return the folders that begin so, and of those in `runs` the runs."""
    begun = sorted(str(path.parent) for path in Path("runs").glob("*/status.json"))
    found = [run for run in begun if run.startswith(incomplete)]
    if found:
        return found
    folder, _, name = incomplete.rpartition("/")
    beside = sorted(Path(folder or ("/" if incomplete.startswith("/") else ".")).glob(f"{name}*/"))
    return [f"{path}/" for path in beside if path.is_dir()]


def _config(ctx: typer.Context) -> list[str]:
    """Return the words among which the config is: typer cannot tell which while an option has no value."""
    given = ctx.params.get("config")
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    return line.split() if given is None else [str(given)]
