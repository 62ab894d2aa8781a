"""Commands that use a finished run: evaluate and predict."""

import csv
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.app import (
    AsJson,
    Device,
    DeviceChoice,
    RunDirectory,
    app,
    display_for,
    print_result,
    reported_errors,
)
from finetune.errors import ConfigError


class SplitName(StrEnum):
    """Which images of a run to score."""

    train = "train"
    val = "val"
    test = "test"


@app.command()
def evaluate(
    run: RunDirectory,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Class folders or a table to score on, matched by name.  [default: the run's own images]",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        SplitName, typer.Option(help="Which of the run's own images, or of a table's rows.")
    ] = SplitName.val,
    device: Device = DeviceChoice.auto,
    as_json: AsJson = False,
) -> None:
    """Score a run on its own validation images, or on others."""
    with reported_errors():
        from finetune.commands.evaluate.evaluate import evaluate as story
        from finetune.report.scores import show_scores

        display = display_for(as_json)
        scores = story(run, data, split=split.value, device=device.value, display=display)
        if as_json:
            print_result(json.dumps(scores.to_dict()))
        else:
            show_scores(display, scores)


@app.command()
def predict(
    run: RunDirectory,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE|FOLDER|TABLE", help="Images, or folders or tables of them.", show_default=False
        ),
    ],
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE|COLUMN=VALUE",
            help="What the model takes beside the image: a table of images with these columns, or a value "
            "for all of them. May be given several times.",
            show_default=False,
        ),
    ] = None,
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
    """Return the most probable classes of images.

    A model of images with several classes gives all that reach their thresholds.
    """
    with reported_errors():
        if as_json and as_csv:
            raise ConfigError("--json and --csv cannot both go to stdout; choose one.")
        from finetune.commands.predict.predict import csv_header, table_header
        from finetune.commands.predict.predict import predict as story

        display = display_for(as_json or as_csv)
        answers = story(
            run, images, metadata=metadata or (), top_k=top_k, device=device.value, display=display
        )
        if as_json:
            print_result(json.dumps([answer.to_dict() for answer in answers]))
        elif as_csv:
            writer = csv.DictWriter(sys.stdout, csv_header(answers), lineterminator="\n")
            writer.writeheader()
            for answer in answers:
                writer.writerows(answer.csv_rows())
        else:
            display.table(table_header(answers), [answer.table_row() for answer in answers], paths=("image",))
        unread = [answer for answer in answers if answer.error is not None]
        if unread:
            display.warn(f"{len(unread)} of {len(answers)} images could not be read")
            if not ignore_errors:
                raise typer.Exit(3)
