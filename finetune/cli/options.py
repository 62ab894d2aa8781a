"""Every argument and option of the commands, with its help: a command then reads as what it does."""

from pathlib import Path
from typing import Annotated

import typer

from finetune.choices import DeviceName, ExportFormat, ExportPrecision, RunOrder, Split
from finetune.cli.completion import (
    complete_architectures,
    complete_architectures_and_keys,
    complete_keys,
    complete_runs,
    complete_stages,
)

# Of several commands
ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG|DATA", help="A YAML file, or a folder or table of images.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Override any key, for instance model.arch=resnet50 stages.frozen.epochs=3.",
        show_default=False,
        autocompletion=complete_keys,
    ),
]
RunDirectory = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Directory of a finished run.", show_default=False, autocompletion=complete_runs
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout; all else goes to stderr.")]
Device = Annotated[DeviceName, typer.Option(help="Where to compute.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show warnings, errors and the result; no progress.")
]

# train, lr-find, groups, check
ConfigOrRun = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG|DATA",
        help="A YAML file, or a folder or table of images; with --resume also a run directory.",
        show_default=False,
    ),
]
RunDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The run directory.  [default: runs/CONFIG-TIME]")
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Resume the run in --run-dir, or the newest one of CONFIG; start one if there is none.",
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="With --resume: accept a changed config or changed data."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Move aside what --run-dir already holds.")]
Devices = Annotated[
    int | None,
    typer.Option(metavar="N", help="Train on N GPUs of this machine, or in N processes on its CPU."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the data, the model and the plan; train nothing.")
]
StageToSweep = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The stage to sweep.  [default: the first; with --run the last]",
        autocompletion=complete_stages,
    ),
]
FromRun = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN",
        help="Sweep from the best weights of this run, finished or interrupted.",
        autocompletion=complete_runs,
    ),
]
CurvePlot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curve into this PNG file.")]
WriteRate = Annotated[
    bool, typer.Option("--write", help="Put the rate into CONFIG; the rest of it stays as it is.")
]
StageToShow = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The stage to show.  [default: the last]", autocompletion=complete_stages
    ),
]
FindingsPage = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page of what was found, to choose on."),
]
FindingsFile = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write a table of what was found, for data.exclude."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 3 for warnings as well.")]

# rank
BackbonesOrOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARCH|KEY=VALUE",
        help="Architectures, patterns such as 'resnet*', and overrides such as data.image_size=128.  "
        "[default: those whose weights are on this machine]",
        show_default=False,
        autocompletion=complete_architectures_and_keys,
    ),
]
DownloadWeights = Annotated[
    bool,
    typer.Option("--download", help="Fetch weights that are not here; without ARCH those of a short list."),
]
JudgeOnVal = Annotated[
    bool, typer.Option("--val", help="Judge on the validation images, instead of on each by all others.")
]
WriteBackbone = Annotated[
    bool, typer.Option("--write", help="Put the best into CONFIG; the rest of it stays as it is.")
]

# auto
Minutes = Annotated[
    float, typer.Option(min=0.1, metavar="MINUTES", help="How long choosing and training may take, about.")
]

# labels
LabelsPage = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page with the doubtful images, to decide on each."),
]
DecisionsFile = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write a table to decide in, for data.corrections."),
]

# evaluate, predict
TestTimeAugmentation = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Answer by the mean over several views of each image (test-time augmentation), mirrored ones "
        "if training mirrored.",
    ),
]
DataToScore = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Class folders or a table to score on, matched by name.  [default: the run's own images]",
        show_default=False,
    ),
]
SplitToScore = Annotated[Split, typer.Option(help="Which of the run's own images, or of a table's rows.")]
EvaluationPage = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page with charts and pictures, to send on."),
]
CheckImages = Annotated[
    bool, typer.Option("--check", help="Look at every image, and say what `finetune check` finds.")
]
RunPageFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where to write it.  [default: report.html of the run]")
]
Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE|FOLDER|TABLE", help="Images, or folders or tables of them.", show_default=False
    ),
]
MetadataOfImages = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TABLE|COLUMN=VALUE",
        help="What the model takes beside the image: a table of images with these columns, or a value "
        "for all of them. May be given several times.",
        show_default=False,
    ),
]
TopK = Annotated[int, typer.Option(min=1, help="How many classes to give for each image.")]
LeastCertainty = Annotated[
    float | None,
    typer.Option(
        "--unsure",
        min=0,
        max=1,
        metavar="P",
        help="Mark answers with a calibrated probability below P (0–1) as unsure.",
        show_default=False,
    ),
]
IgnoreErrors = Annotated[
    bool, typer.Option("--ignore-errors", help="Exit with 0 even if an image cannot be read.")
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV on stdout; all else goes to stderr.")]
PredictionsFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the predictions to this file in place of the table: .csv or .json, as --csv and --json.",
        show_default=False,
    ),
]

# cache
TrimCache = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Remove what was unused for longest until so much is left: 1GB, 0."),
]
ClearCache = Annotated[bool, typer.Option("--clear", help="Remove everything.")]
LeaveOutSelfTest = Annotated[bool, typer.Option("--quick", help="Look around only; train nothing.")]

# models, optimizers, init
Pattern = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN",
        help="Part of a name, or a pattern such as 'resnet*'.",
        show_default=False,
        autocompletion=complete_architectures,
    ),
]
RaceThem = Annotated[
    bool, typer.Option("--race", help="Run them all from one start, at a saddle and in a ravine.")
]
RaceSteps = Annotated[
    int | None, typer.Option(metavar="N", help="Steps that each may take in the race.  [default: 1000]")
]
RacePlot = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw the paths of the race into this PNG file.")
]
DataToRead = Annotated[
    Path,
    typer.Argument(metavar="DIR|TABLE", help="Your folder or table of images.", show_default=False),
]
ConfigToWrite = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="The config to write.  [default: NAME.yaml]"),
]

# export
Format = Annotated[
    ExportFormat,
    typer.Option(
        "--format",
        help="onnx (runs anywhere, preprocessing inside), torch (a .pt2 program), or timm (a state dict).",
    ),
]
ExportedFile = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Where to write it.  [default: in RUN]", show_default=False
    ),
]
FilePrecision = Annotated[ExportPrecision, typer.Option("--precision", help="What an ONNX file computes in.")]
WithFeatures = Annotated[bool, typer.Option("--features", help="Let the file return features as well.")]
MostLoss = Annotated[
    float,
    typer.Option(
        "--most-loss", min=0, max=100, help="Points of accuracy on the validation images that int8 may lose."
    ),
]

# runs, compare
RunsFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of runs, which may lie deeper.", show_default=True)
]
SortRuns = Annotated[RunOrder, typer.Option("--sort", help="Newest, best or shortest first.")]
FilterRuns = Annotated[
    str | None,
    typer.Option("--filter", metavar="TEXT", help="Only runs whose name, architecture or data hold it."),
]
StateOfRuns = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="Only runs of a state, such as done or failed.")
]
RunsToCompare = Annotated[
    list[Path], typer.Argument(metavar="RUN RUN…", help="Finished runs; each is compared with the first.")
]
ComparisonPage = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page with curves and pictures.", show_default=False),
]
