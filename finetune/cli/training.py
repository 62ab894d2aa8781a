"""Commands about a config: train it, find its rates, show its groups, check its images."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.app import AsJson, ConfigFile, Overrides, app, check_plot_path, display_for, reported_errors
from finetune.config.editor import check_stage_lr, write_stage_lr
from finetune.config.load import load_config
from finetune.errors import ConfigError
from finetune.machine.signals import StopSignals


@app.command()
def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", help="The YAML file; with --resume also a run directory.", show_default=False
        ),
    ],
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run directory.  [default: runs/CONFIG-TIME]")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --run-dir, or the newest one of CONFIG; start one if there is none.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: go on though the config or the data have changed.")
    ] = False,
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
        check_resume(config, run_dir, resume=resume, force=force, overwrite=overwrite)
        display = display_for(as_json)
        if resume and config.is_dir():
            from finetune.commands.train.resume import config_as_given
            from finetune.runs import open_run

            settings, run_dir = config_as_given(open_run(config), overrides or []), config
        else:
            settings = load_config(config, overrides or [])
        from finetune.commands.train import train as story

        if dry_run:
            story.show_plan(settings, display)
            return
        outcome = story.train(
            settings,
            name=config.stem,
            run_dir=run_dir,
            overwrite=overwrite,
            resume=resume,
            force=force,
            display=display,
        )
        if as_json:
            print(json.dumps(asdict(outcome)))


def check_resume(config: Path, run_dir: Path | None, *, resume: bool, force: bool, overwrite: bool) -> None:
    """Refuse options of `train` that do not go together.

    Raises:
        ConfigError: they do not.
    """
    if force and not resume:
        raise ConfigError("--force is for --resume: it goes on though the config or the data have changed.")
    if overwrite and resume:
        raise ConfigError("--resume goes on with a run, --overwrite moves it aside; leave out one of them.")
    if resume and config.is_dir() and run_dir is not None:
        raise ConfigError(f"{config} is the run to go on with; leave out --run-dir.")
    if config.is_dir() and not resume:
        raise ConfigError(f"{config} is a folder; name a YAML file, or add --resume if it is a run.")


@app.command("lr-find")
def lr_find(
    config: ConfigFile,
    overrides: Overrides = None,
    stage: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The stage to sweep.  [default: the first; with --run the last]"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Sweep from the best weights of this run, finished or interrupted."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curve into this PNG file.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put the rate into CONFIG; the rest of it stays as it is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find a learning rate for a stage of CONFIG; train nothing."""
    with reported_errors():
        display, settings = display_for(as_json), load_config(config, overrides or [])
        from finetune.commands import lr_find as story

        stage = story.choose_stage(settings, stage, from_run=run is not None)
        check_plot_path(plot)
        if write:
            check_stage_lr(config, stage)
        answer = story.lr_find(settings, stage, run_dir=run, display=display)
        story.show_answer(answer, display)
        if plot is not None:
            story.write_plot(answer.found, plot)
            display.say(f"plot    {plot}")
        if as_json:
            print(json.dumps(answer.to_dict()))
        if answer.lr is None:
            raise story.refusal(answer.found)
        if write:
            write_stage_lr(config, stage, answer.lr.written)
            display.say(f"written to {config}, stage {stage}")


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
        display, settings = display_for(as_json), load_config(config, overrides or [])
        from finetune.commands.groups import describe_groups
        from finetune.optim.param_groups import TABLE_COLUMNS

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
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 for warnings as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for faults in the images, and tell what training will do and take."""
    with reported_errors(), StopSignals():
        display, settings = display_for(as_json), load_config(config, overrides or [])
        from finetune.commands.check import check as story
        from finetune.commands.check.report import show

        report = story.check(settings, display)
        if as_json:
            print(json.dumps(report.to_dict(strict=strict)))
        else:
            show(report, display, strict=strict)
        raise typer.Exit(report.exit_code(strict=strict))
