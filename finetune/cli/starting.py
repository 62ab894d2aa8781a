"""Commands to start from: what there is, and a first config."""

import json
from dataclasses import asdict
from pathlib import Path

from finetune.cli.app import app, check_plot_path, display_for, print_result, reported_errors
from finetune.cli.options import (
    AsJson,
    ConfigToWrite,
    DataToRead,
    Overrides,
    Pattern,
    RacePlot,
    RaceSteps,
    RaceThem,
)
from finetune.errors import ConfigError
from finetune.machine.quick_imports import quick_torch_imports


@app.command()
def models(
    pattern: Pattern = "*",
    as_json: AsJson = False,
) -> None:
    """List the architectures and their pretrained weights."""
    with reported_errors():
        with quick_torch_imports():
            from finetune.model.catalogue import architectures

        found = architectures(pattern)
        if not found:
            raise ConfigError(
                f"{pattern}: no architecture has such a name.\nList all of them: finetune models"
            )
        if as_json:
            print_result(json.dumps([asdict(architecture) for architecture in found]))
            return
        display_for(False).table(
            ("architecture", "parameters", "image size", "weights"),
            [(a.name, a.parameters or "–", a.image_size, ", ".join(a.weights)) for a in found],
        )


@app.command()
def optimizers(
    race: RaceThem = False,
    steps: RaceSteps = None,
    plot: RacePlot = None,
    as_json: AsJson = False,
) -> None:
    """List the optimizers with rules and settings, or race them."""
    with reported_errors():
        if not race and (steps is not None or plot is not None):
            option = "--plot" if steps is None else "--steps"
            raise ConfigError(f"{option} is about the race of the optimizers.\nAdd --race, or leave it out.")
        if race:
            check_plot_path(plot)
            _race_optimizers(1000 if steps is None else steps, plot, as_json=as_json)
            return
        from finetune.commands.optimizers import list as story

        if as_json:
            print_result(json.dumps(story.list_optimizers()))
        else:
            story.show_optimizers(display_for(False))


def _race_optimizers(steps: int, plot: Path | None, *, as_json: bool) -> None:
    from finetune.commands.optimizers import race as story

    display = display_for(as_json)
    result = story.race(steps, display.bar)
    if as_json:
        print_result(json.dumps(result.to_dict()))
    else:
        story.show_race(result, display)
    if plot is not None:
        story.write_plot(result, plot)
        display.say(f"\nplot    {plot}")


@app.command()
def init(
    data: DataToRead,
    overrides: Overrides = None,
    output: ConfigToWrite = None,
) -> None:
    """Write a commented config for a folder or table of images.

    KEY=VALUE says how the data are to be read where that cannot be seen: data.columns.label=breed.
    """
    with reported_errors():
        from finetune.commands.init import config_name, write_config

        print(write_config(data, output or Path(config_name(data)), overrides or []))


@app.command()
def schema() -> None:
    """Print the JSON schema of the config, for editors."""
    with reported_errors():
        from finetune.config.reference import schema_text

        print_result(schema_text(), end="")
