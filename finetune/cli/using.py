"""Commands that use a finished run: evaluate and predict."""

import csv
import json
import sys

import typer

from finetune.cli.app import app, display_for, print_result, reported_errors
from finetune.cli.options import (
    AsCsv,
    AsJson,
    DataToScore,
    Device,
    IgnoreErrors,
    Images,
    MetadataOfImages,
    RunDirectory,
    SplitToScore,
    TopK,
)
from finetune.errors import ConfigError
from finetune.text import counted


@app.command()
def evaluate(
    run: RunDirectory,
    data: DataToScore = None,
    split: SplitToScore = "val",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a run on its own validation images, or on others."""
    with reported_errors():
        from finetune.commands.evaluate.evaluate import evaluate as story
        from finetune.report.scores import show_scores

        display = display_for(as_json)
        scores = story(run, data, split=split, device=device, display=display)
        if as_json:
            print_result(json.dumps(scores.to_dict()))
        else:
            show_scores(display, scores)


@app.command()
def predict(
    run: RunDirectory,
    images: Images,
    metadata: MetadataOfImages = None,
    top_k: TopK = 3,
    ignore_errors: IgnoreErrors = False,
    device: Device = "auto",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Return the most probable classes of images.

    A model of images with several classes gives all that reach their thresholds.
    """
    with reported_errors():
        if as_json and as_csv:
            raise ConfigError("--json and --csv cannot both go to stdout; choose one.")
        from finetune.commands.predict.output import output_of
        from finetune.commands.predict.predict import predict as story

        display = display_for(as_json or as_csv)
        answers = story(run, images, metadata=metadata or (), top_k=top_k, device=device, display=display)
        output = output_of(answers)
        if as_json:
            print_result(json.dumps([output.json_object(answer) for answer in answers]))
        elif as_csv:
            writer = csv.DictWriter(sys.stdout, output.csv_header, lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for answer in answers for row in output.csv_rows(answer))
        else:
            rows = [output.table_row(answer) for answer in answers]
            display.table(output.table_header, rows, paths=("image",))
        unread = [answer for answer in answers if answer.error is not None]
        if unread:
            display.warn(f"{len(unread):,} of {counted(len(answers), 'image')} could not be read")
            if not ignore_errors:
                raise typer.Exit(3)
