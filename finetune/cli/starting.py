"""Commands to start from: what there is, and a first config."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.app import AsJson, app, display_for, reported_errors


@app.command()
def models(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN", help="Part of a name, or a pattern such as 'resnet*'.", show_default=False
        ),
    ] = "*",
    as_json: AsJson = False,
) -> None:
    """List the architectures and their pretrained weights."""
    with reported_errors():
        from finetune.model.catalogue import architectures

        found = architectures(pattern)
        if as_json:
            print(json.dumps([asdict(architecture) for architecture in found]))
            return
        display_for(False).table(
            ("architecture", "parameters", "image size", "weights"),
            [(a.name, a.parameters, a.image_size, ", ".join(a.weights)) for a in found],
        )


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Your folder of images.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The config to write.  [default: NAME.yaml]"),
    ] = None,
) -> None:
    """Write a commented config for a folder of images."""
    with reported_errors():
        from finetune.init import write_config

        print(write_config(folder, output or Path(f"{folder.resolve().name}.yaml")))


@app.command()
def schema() -> None:
    """Print the JSON schema of the config, for editors."""
    from finetune.schema import schema_text

    print(schema_text(), end="")
