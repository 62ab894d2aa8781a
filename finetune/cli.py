"""The command line: parse arguments, call one story, print what it gives.

torch takes seconds to import, so each command imports its story itself; help and config errors come at once.
"""

import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from finetune import __version__
from finetune.config_file import load_config
from finetune.errors import ConfigError, FinetuneError, Interrupted
from finetune.progress import Display
from finetune.text import printable

app = typer.Typer(
    name="finetune",
    help="Transfer learning on images from one YAML file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a bug, 2 usage or config, 3 data, 4 training diverged, 5 damaged files, "
    "6 memory or disk, 7 device, network or weights, 8 run directory, 130 interrupted.",
)


class SplitName(StrEnum):
    """Which images of a run to score."""

    train = "train"
    val = "val"
    test = "test"


class DeviceChoice(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Override any key, for instance model.arch=resnet50 stages.0.epochs=3.",
        show_default=False,
    ),
]
RunDirectory = Annotated[
    Path, typer.Argument(metavar="RUN", help="Directory of a finished run.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout; all else goes to stderr.")]
Device = Annotated[DeviceChoice, typer.Option(help="Where to compute.")]


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run directory.  [default: runs/CONFIG-TIME]")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Move aside what --run-dir already holds.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the data, the model and the plan; train nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier as CONFIG says."""
    with reported_errors():
        display, settings = _display(as_json), load_config(config, overrides or [])
        from finetune import train as story

        if dry_run:
            story.show_plan(settings, display)
            return
        outcome = story.train(
            settings, name=config.stem, run_dir=run_dir, overwrite=overwrite, display=display
        )
        if as_json:
            print(json.dumps(asdict(outcome)))


@app.command()
def evaluate(
    run: RunDirectory,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Class folders to score on, matched by name.  [default: the run's own images]",
            show_default=False,
        ),
    ] = None,
    split: Annotated[SplitName, typer.Option(help="Which of the run's own images.")] = SplitName.val,
    device: Device = DeviceChoice.auto,
    as_json: AsJson = False,
) -> None:
    """Score a run on its own validation images, or on another folder."""
    with reported_errors():
        from finetune.evaluate import evaluate as story
        from finetune.report import show_scores

        display = _display(as_json)
        scores = story(run, folder, split=split.value, device=device.value, display=display)
        if as_json:
            print(json.dumps(scores.to_dict()))
        else:
            show_scores(display, scores)


@app.command()
def predict(
    run: RunDirectory,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE|FOLDER", help="Images, or folders of them.", show_default=False),
    ],
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to give for each image.")] = 3,
    ignore_errors: Annotated[
        bool, typer.Option("--ignore-errors", help="Exit with 0 even if an image cannot be read.")
    ] = False,
    device: Device = DeviceChoice.auto,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV on stdout; all else goes to stderr.")
    ] = False,
) -> None:
    """Give the most probable classes of images."""
    with reported_errors():
        if as_json and as_csv:
            raise ConfigError("--json and --csv cannot both go to stdout; choose one.")
        from finetune.predict import predict as story

        display = _display(as_json or as_csv)
        answers = story(run, images, top_k=top_k, device=device.value, display=display)
        if as_json:
            print(json.dumps([answer.to_dict() for answer in answers]))
        elif as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(("image", "rank", "class", "probability", "error"))
            for answer in answers:
                writer.writerows(answer.csv_rows())
        else:
            display.table(
                ("image", "class", "probability", "then"), [answer.table_row() for answer in answers]
            )
        unread = [answer for answer in answers if answer.error is not None]
        if unread:
            display.warn(f"{len(unread)} of {len(answers)} images could not be read")
            if not ignore_errors:
                raise typer.Exit(3)


@app.command()
def groups(
    config: ConfigFile,
    overrides: Overrides = None,
    stage: Annotated[
        str | None, typer.Option(metavar="NAME", help="The stage to show.  [default: the last]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the model as layer groups: shapes, rates, what is frozen."""
    with reported_errors():
        display, settings = _display(as_json), load_config(config, overrides or [])
        from finetune.describe import describe_groups
        from finetune.plan import TABLE_COLUMNS

        plans = describe_groups(settings, stage, display)
        if as_json:
            print(json.dumps({"groups": [plan.to_dict() for plan in plans]}))
            return
        for plan in plans:
            display.table(
                ("layer", "type", "affine", "shape", "parameters"), plan.layer_table(), title=plan.title
            )
            display.say("")
        display.table(TABLE_COLUMNS, [plan.row() for plan in plans])


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
        _display(False).table(
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


def main() -> None:
    """Run the command line."""
    # Names of files may hold bytes that are no text; they must not break what we print.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(f"finetune {__version__}")
        raise typer.Exit


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn a user's mistake into a line on stderr and an exit code; a bug of ours shows its traceback."""
    try:
        yield
    except FinetuneError as error:
        print("error:", printable(str(error), keep="\n"), file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(Interrupted.exit_code) from None
    except BrokenPipeError:
        # Whoever read our output has seen enough. Keep Python from complaining again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def _display(stdout_has_data: bool) -> Display:
    return Display(sys.stderr if stdout_has_data else sys.stdout)
