"""Commands that use a finished run: evaluate, report, predict and export."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from finetune.cli.app import app, check_output_path, display_for, print_result, reported_errors
from finetune.cli.options import (
    AsCsv,
    AsJson,
    CheckImages,
    DataToScore,
    Device,
    EvaluationPage,
    ExportedFile,
    FilePrecision,
    Format,
    IgnoreErrors,
    Images,
    LeastCertainty,
    MetadataOfImages,
    MostLoss,
    PredictionsFile,
    Quiet,
    RunDirectory,
    RunPageFile,
    SplitToScore,
    TestTimeAugmentation,
    TopK,
    WithFeatures,
)
from finetune.display import Display
from finetune.errors import ConfigError
from finetune.machine.files import write_file
from finetune.machine.quick_imports import quick_torch_imports
from finetune.notes import Note
from finetune.text import counted, shown_size

if TYPE_CHECKING:
    from finetune.commands.predict.prediction import Prediction


@app.command()
def evaluate(
    run: RunDirectory,
    data: DataToScore = None,
    split: SplitToScore = "val",
    tta: TestTimeAugmentation = False,
    device: Device = "auto",
    html: EvaluationPage = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score a run on its own validation images, or on others."""
    with reported_errors():
        check_output_path("--html", html)
        with quick_torch_imports():
            from finetune.commands.evaluate.confidence import show_confidence
            from finetune.commands.evaluate.evaluate import evaluate as story
            from finetune.report.scores import headline, show_scores

        display = display_for(as_json, quiet=quiet)
        found = story(run, data, split=split, device=device, display=display, tta=tta)
        if html is not None:
            from finetune.commands.report.page import page_of_evaluation

            write_file(html, page_of_evaluation(found.judged, found.scores, data, display.bar))
            display.say(f"page    {html}")
        if as_json:
            print_result(json.dumps(found.to_dict()))
        elif quiet:
            print_result(headline(found.scores))
        else:
            show_scores(display, found.scores)
            show_confidence(found.confidence, display)


@app.command()
def report(
    run: RunDirectory,
    output: RunPageFile = None,
    check: CheckImages = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Make the report page of a run anew.

    Its images are shown where they are still there.
    """
    with reported_errors():
        check_output_path("--output", output)
        with quick_torch_imports():
            from finetune.commands.report.report import write_report_page

        display = display_for(as_json)
        written = write_report_page(run, output=output, check=check, device=device, display=display)
        for line in written.left_out:
            display.warn(f"left out: {line}")
        if as_json:
            print_result(json.dumps(written.to_dict()))
        else:
            display.say(f"page    {written.path}, {shown_size(written.bytes)}")


@app.command()
def predict(
    run: RunDirectory,
    images: Images,
    metadata: MetadataOfImages = None,
    top_k: TopK = 3,
    unsure: LeastCertainty = None,
    tta: TestTimeAugmentation = False,
    ignore_errors: IgnoreErrors = False,
    device: Device = "auto",
    output: PredictionsFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Return the most probable classes of images.

    A model of images with several classes gives all that reach their thresholds.
    """
    with reported_errors():
        if as_json and as_csv:
            raise ConfigError("--json and --csv cannot both go to stdout; choose one.")
        check_predictions_file(output, inputs=[*images, *map(Path, metadata or ())])
        with quick_torch_imports():
            from finetune.commands.predict.output import csv_text, json_text, output_of, remarks_summary
            from finetune.commands.predict.predict import predict as story
        display, progress = display_for(as_json or as_csv), display_for(as_json or as_csv, quiet=quiet)
        look = partial(story, metadata=metadata or (), top_k=top_k, device=device, tta=tta)
        answers = look(run, images, display=progress)
        if output is not None:
            write_file(output, (csv_text if output.suffix.lower() == ".csv" else json_text)(answers, unsure))
            display.say(f"{counted(len(answers), 'prediction')} written to {output}")
        if as_json or as_csv:
            print_result((json_text if as_json else csv_text)(answers, unsure), end="")
        elif output is None:
            shown = output_of(answers, unsure)
            display.table(shown.table_header, list(map(shown.table_row, answers)), paths=("image",))
        progress.show(map(Note, remarks_summary(answers, unsure)))
        if count_unread(answers, display) and not ignore_errors:
            raise typer.Exit(3)


def count_unread(answers: "Sequence[Prediction]", display: Display) -> int:
    """Return how many images could not be read, and warn of them."""
    if unread := sum(answer.error is not None for answer in answers):
        display.warn(f"{unread:,} of {counted(len(answers), 'image')} could not be read")
    return unread


def check_predictions_file(path: Path | None, *, inputs: Sequence[Path]) -> None:
    """Refuse a file for predictions that cannot be written, or is read, before anything is predicted.

    Raises:
        ConfigError: another ending than .csv and .json, no such folder, a folder itself, or an input.
        ResourceError: the system refuses to write there.
    """
    if path is None:
        return
    if path.suffix.lower() not in (".csv", ".json"):
        raise ConfigError(f"--output {path}: name a file that ends in .csv or .json.")
    if any(path.resolve() == one.resolve() for one in inputs):
        raise ConfigError(f"--output {path}: this file is read; name another one.")
    check_output_path("--output", path)


@app.command()
def export(
    run: RunDirectory,
    format: Format = "onnx",
    output: ExportedFile = None,
    precision: FilePrecision = "float32",
    features: WithFeatures = False,
    most_loss: MostLoss = 2.0,
    as_json: AsJson = False,
) -> None:
    """Write a run's model as a file that runs without finetune."""
    with reported_errors():
        check_output_path("--output", output)
        with quick_torch_imports():
            from finetune.commands.export.export import ExportOptions
            from finetune.commands.export.export import export as story

        display = display_for(as_json)
        options = ExportOptions(format, output, precision, features, most_loss)
        exported = story(run, options, display)
        if as_json:
            print_result(json.dumps(exported.to_dict()))
            return
        display.say(f"file    {exported.file}, {shown_size(exported.file.stat().st_size)}")
        display.say(f"check   {exported.parity}")
        if exported.accuracy is not None:
            pairs = ", ".join(f"{name} {value:.2%}" for name, value in exported.accuracy.items())
            display.say(f"right   of the validation images: {pairs}")
        display.say(f"card    {exported.card}")
