"""Commands about a config: train it, find its rates, show its groups, check its images."""

import json
import shlex
from dataclasses import asdict
from os.path import isdir
from pathlib import Path

import typer

from finetune.cli.app import (
    app,
    check_output_path,
    check_plot_path,
    display_for,
    print_result,
    reported_errors,
)
from finetune.cli.keys import ConfigCommand
from finetune.cli.options import (
    AsJson,
    ConfigFile,
    ConfigOrRun,
    CurvePlot,
    Devices,
    DryRun,
    FindingsFile,
    FindingsPage,
    Force,
    FromRun,
    Overrides,
    Overwrite,
    Quiet,
    Resume,
    RunDir,
    StageToShow,
    StageToSweep,
    Strict,
    WriteRate,
)
from finetune.cli.ranks import RankOfCommand, train_on
from finetune.commands.settings import (
    RunOptions,
    choose_stage,
    is_data,
    is_run,
    read_settings,
    read_training,
)
from finetune.display import Display
from finetune.errors import ConfigError
from finetune.machine.quick_imports import quick_torch_imports
from finetune.machine.signals import StopSignals
from finetune.notes import Note
from finetune.text import printable


@app.command(cls=ConfigCommand)
def train(
    config: ConfigOrRun = None,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    force: Force = False,
    overwrite: Overwrite = False,
    devices: Devices = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier as CONFIG says."""
    with reported_errors(prints_a_log=True), RankOfCommand() as rank:
        config = named(config)
        options = RunOptions(run_dir, resume=resume, force=force, overwrite=overwrite)
        if devices is not None and not dry_run:
            arguments = ["train", str(config), *(overrides or []), *written(options)]
            raise typer.Exit(train_on(devices, arguments, quiet=quiet, as_json=as_json))
        display = rank.display(as_json, quiet=quiet)
        if isdir(config):  # to tell a run from images takes PyTorch, too
            announce("train", config, display, as_json=as_json)
        settings, name, options = read_training(config, overrides or [], options, display.bar)
        if not isdir(config):
            announce("train", config, display, as_json=as_json)
        display.show(defaults_notes(config))
        with quick_torch_imports():
            import finetune.training.loop  # noqa: F401  fastai, whose import is no part of a stage's time
            from finetune.commands.train import train as story
            from finetune.commands.train.follow import follow

        if dry_run:
            if rank.is_first:
                story.show_plan(settings, display_for(as_json))
        elif (ranks := rank.meet(settings.device)).is_first:
            outcome = story.train(settings, options, name=name, display=display, ranks=ranks)
            if as_json or quiet:
                print_result(json.dumps(asdict(outcome)) if as_json else printable(str(outcome)))
        else:
            follow(settings, display, ranks)


def named(config: Path | None) -> Path:
    """Return the config that was named.

    Raises:
        ConfigError: none was.
    """
    if config is None:
        raise ConfigError(
            "Name a config, or a folder or table of images: finetune train photos.yaml, or just photos.\n"
            "To write a config for a folder of images: finetune init photos"
        )
    return config


def written(options: RunOptions) -> list[str]:
    """Return options as they are given on the command line."""
    flags = {"--resume": options.resume, "--force": options.force, "--overwrite": options.overwrite}
    named = [] if options.run_dir is None else ["--run-dir", str(options.run_dir)]
    return [*named, *(flag for flag, wanted in flags.items() if wanted)]


def announce(command: str, config: Path, display: Display, *, as_json: bool) -> None:
    """Say what begins before PyTorch is loaded: for seconds nothing else would appear in a log."""
    if not as_json:
        display.say(f"{command:<7} {config} (loading PyTorch)")


def check_has_file(config: Path) -> None:
    """Refuse to write into a config that is not in a file.

    Raises:
        ConfigError: only the data was named.
    """
    if is_data(config):
        raise ConfigError(
            f"--write: {config} is data, and its config is in no file.\n"
            f"Write one first: finetune init {shlex.quote(str(config))}"
        )


def defaults_notes(config: Path) -> list[Note]:
    """Say which config is used where only the data was named."""
    if not is_data(config) or is_run(config):
        return []
    how_to_change = f"to change them: finetune init {shlex.quote(str(config))}"
    return [Note(f"config  the defaults for {config}, in config.yaml of the run; {how_to_change}")]


@app.command("lr-find", cls=ConfigCommand)
def lr_find(
    config: ConfigFile,
    overrides: Overrides = None,
    stage: StageToSweep = None,
    run: FromRun = None,
    plot: CurvePlot = None,
    write: WriteRate = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find a learning rate for a stage of CONFIG; train nothing."""
    with reported_errors():
        display = display_for(as_json, quiet=quiet)
        settings = read_settings(config, overrides or [], display.bar)[0]
        from finetune.config.editor import check_stage_lr, write_stage_lr

        stage = choose_stage(settings, stage, from_run=run is not None)
        check_plot_path(plot)
        if write:
            check_has_file(config)
            check_stage_lr(config, stage)
        announce("lr-find", config, display, as_json=as_json)
        display.show(defaults_notes(config))
        with quick_torch_imports():
            from finetune.commands import lr_find as story

        answer = story.lr_find(settings, stage, run_dir=run, display=display)
        story.show_answer(answer, display)
        if plot is not None:
            story.write_plot(answer.found, plot)
            display.say(f"plot    {plot}")
        if as_json:
            print_result(json.dumps(answer.to_dict()))
        elif quiet and answer.lr is not None:
            print_result(story.rate_line(answer.lr))
        if answer.lr is None:
            raise story.refusal(answer.found)
        if write:
            write_stage_lr(config, stage, answer.lr.written)
            display.say(f"written to {config}, stage {stage}")


@app.command(cls=ConfigCommand)
def groups(
    config: ConfigFile,
    overrides: Overrides = None,
    stage: StageToShow = None,
    as_json: AsJson = False,
) -> None:
    """Show the model as layer groups: shapes, rates, what is frozen."""
    with reported_errors():
        display = display_for(as_json)
        settings = read_settings(config, overrides or [], display.bar)[0]
        with quick_torch_imports():
            from finetune.commands.groups import describe_groups
            from finetune.optim.param_groups import LEAST_IMPORTANT_COLUMNS, TABLE_COLUMNS

        plans, notes = describe_groups(settings, stage)
        display.show(notes)
        if as_json:
            print_result(json.dumps({"groups": [plan.to_dict() for plan in plans]}))
            return
        for plan in plans:
            display.table(
                ("layer", "type", "affine", "shape", "parameters"), plan.layer_table(), title=plan.title
            )
            display.say("")
        rows = [plan.row() for plan in plans]
        display.table(TABLE_COLUMNS, rows, least_important=LEAST_IMPORTANT_COLUMNS)


@app.command(cls=ConfigCommand)
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    html: FindingsPage = None,
    csv: FindingsFile = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Check the images and the plan: faults, steps, time and memory."""
    with reported_errors():
        display = display_for(as_json)
        settings = read_settings(config, overrides or [], display.bar)[0]
        check_output_path("--html", html)
        check_output_path("--csv", csv)
        announce("check", config, display, as_json=as_json)
        with quick_torch_imports():
            from finetune.commands.check import check as story
            from finetune.commands.check.output import check_no_decisions
            from finetune.commands.check.report import show

        check_no_decisions(csv)

        with StopSignals():
            report = story.check(settings, display)
            files = story.write_files(report, settings, display, html=html, csv=csv)
        if as_json:
            print_result(json.dumps(report.to_dict(strict=strict)))
        else:
            show(report, display, strict=strict)
        for line in files:
            display.say(line)
        if code := report.exit_code(strict=strict):
            raise typer.Exit(code)
