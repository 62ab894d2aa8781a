"""The command that searches keys of a config."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.app import app, check_output_path, display_for, print_result, reported_errors
from finetune.cli.options import AsJson, Quiet
from finetune.errors import ConfigError
from finetune.machine.quick_imports import quick_torch_imports

if TYPE_CHECKING:
    from finetune.commands.sweep.result import TrialResult
    from finetune.commands.sweep.sweep import SweepOptions

SweepFileOrFolder = Annotated[
    Path,
    typer.Argument(
        metavar="SWEEP|DIR",
        help="A sweep file (YAML), or the folder of a sweep to show or resume.",
        show_default=False,
    ),
]
SweepDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of the sweep.  [default: runs/SWEEP-TIME]"),
]
ResumeSweep = Annotated[
    bool, typer.Option("--resume", help="Resume the sweep in --sweep-dir or DIR, or the newest of SWEEP.")
]
Trials = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="How many trials there are in the end.  [default: as SWEEP says]"),
]
SweepMinutes = Annotated[
    float | None,
    typer.Option("--minutes", min=0.001, metavar="MINUTES", help="Begin no trial any more after this time."),
]
Workers = Annotated[
    int, typer.Option(min=1, max=256, metavar="N", help="Trials at a time, each on its share of the cores.")
]
Best = Annotated[bool, typer.Option("--best", help="Of a DIR: show the best trial alone.")]
WriteBest = Annotated[
    Path | None,
    typer.Option("--write", metavar="FILE", help="Of a DIR: write the config of the best trial."),
]
SweepPage = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Of a DIR: write the page of what was found so far."),
]


@app.command()
def sweep(
    sweep: SweepFileOrFolder,
    sweep_dir: SweepDir = None,
    resume: ResumeSweep = False,
    trials: Trials = None,
    minutes: SweepMinutes = None,
    workers: Workers = 1,
    best: Best = False,
    write: WriteBest = None,
    html: SweepPage = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search keys of a config: many trainings, the best one named."""
    with reported_errors(prints_a_log=True):
        looking = sweep.is_dir() and not resume
        how_to_run = sweep_dir is not None or trials is not None or minutes is not None or workers > 1
        if not looking and (best or write is not None or html is not None):
            option = "--best" if best else "--write" if write is not None else "--html"
            raise ConfigError(f"{option} is about a sweep that was run.\nName its folder: finetune sweep DIR")
        if looking and how_to_run:
            raise ConfigError(f"{sweep} is the folder of a sweep.\nTo go on with it, add --resume.")
        if looking:
            _look(sweep, best=best, write=write, html=html, as_json=as_json, quiet=quiet)
            return
        if not sweep.is_dir():
            from finetune.config.load_sweep import load_sweep

            load_sweep(sweep)  # mistakes come at once; PyTorch takes seconds
        if not as_json:
            display_for(as_json, quiet=quiet).say(f"sweep   {sweep} (loading PyTorch)")
        with quick_torch_imports():
            import finetune.training.loop  # noqa: F401  fastai, whose import is no part of a trial's time
            from finetune.commands.sweep.sweep import SweepOptions

        options = SweepOptions(sweep_dir, resume, trials, minutes, workers)
        _search(sweep, options, as_json=as_json, quiet=quiet)


def _search(sweep: Path, options: "SweepOptions", *, as_json: bool, quiet: bool) -> None:
    """Run trials, and print each as it ends."""
    from finetune.commands.sweep import sweep as story

    def tell(trial: "TrialResult") -> None:
        if as_json:
            print_result(json.dumps(trial.to_dict()))

    result = story.sweep(sweep, options, display_for(as_json, quiet=quiet), tell)
    if as_json:
        print_result(json.dumps(result.to_dict()))
    elif quiet and result.best is not None:
        print_result(result.best.run_dir)


def _look(
    folder: Path, *, best: bool, write: Path | None, html: Path | None, as_json: bool, quiet: bool
) -> None:
    """Show what a sweep has found so far, and write what was asked for."""
    check_output_path("--html", html)
    check_output_path("--write", write)
    if write is not None and write.exists():
        raise ConfigError(f"--write {write}: there is such a file; name another, or remove it.")
    with quick_torch_imports():
        from finetune.commands.sweep import result as shown
        from finetune.commands.sweep.page import sweep_page
        from finetune.commands.sweep.sweep import open_sweep
        from finetune.machine.files import write_file

    study = open_sweep(folder)
    found, display = shown.read_result(study), display_for(as_json, quiet=quiet)
    if write is not None:
        write_file(write, shown.best_config(found, study.plan))
    if html is not None:
        write_file(html, sweep_page(found, html))
    if as_json:
        answer = shown.required_best(found).to_dict() if best else found.to_dict()
        print_result(json.dumps(answer))
    elif quiet:
        print_result(shown.required_best(found).run_dir)
    elif best or write is not None:
        shown.required_best(found)
        shown.show_summary(found, display)
    else:
        shown.show_result(found, display)
    for what, path in (("config", write), ("page", html)):
        if path is not None:
            display.say(f"{what:<7} {path}")
