"""Commands about what finetune keeps on a machine: its cache, and the runs."""

import json
from pathlib import Path

import typer

from finetune.cli.app import app, check_output_path, display_for, print_result, reported_errors
from finetune.cli.options import (
    AsJson,
    ClearCache,
    ComparisonPage,
    Device,
    FilterRuns,
    LeaveOutSelfTest,
    RunsFolder,
    RunsToCompare,
    SortRuns,
    StateOfRuns,
    TrimCache,
)
from finetune.errors import ConfigError
from finetune.machine.files import write_file
from finetune.machine.quick_imports import quick_torch_imports


@app.command()
def cache(
    trim: TrimCache = None,
    clear: ClearCache = False,
    as_json: AsJson = False,
) -> None:
    """Show the cache of scans, images and features, or empty it."""
    with reported_errors():
        from finetune.commands import cache as story
        from finetune.machine.cache import parse_size

        if clear and trim is not None:
            raise ConfigError("--clear removes everything, --trim all but a size.\nLeave out one of them.")
        removed = 0
        if trim is not None:
            try:
                most_bytes = parse_size(trim)
            except ValueError as error:
                raise ConfigError(f"--trim: {error}\nFor instance: finetune cache --trim 1GB") from None
            removed = story.trim_cache(most_bytes)
        elif clear:
            removed = story.clear_cache()
        report = story.look_at_cache(removed)
        if as_json:
            print_result(json.dumps(report.to_dict()))
        else:
            story.show_cache(report, display_for(False), changed=clear or trim is not None)


@app.command()
def doctor(
    quick: LeaveOutSelfTest = False,
    as_json: AsJson = False,
) -> None:
    """Say whether training works here, for you or a bug report."""
    with reported_errors():
        from finetune.commands.doctor import doctor as story

        display = display_for(as_json)
        checkup = story.examine()
        if not as_json:
            story.show(checkup, display)
        if not quick and checkup.exit_code == 0:
            from finetune.commands.doctor.self_test import run_self_test

            checkup = story.with_self_test(checkup, run_self_test())
        if as_json:
            print_result(json.dumps(checkup.to_dict()))
        else:
            story.show_verdict(checkup, display)
        if code := checkup.exit_code:
            raise typer.Exit(code)


@app.command()
def runs(
    folder: RunsFolder = Path("runs"),
    sort: SortRuns = "when",
    filter: FilterRuns = None,
    state: StateOfRuns = None,
    as_json: AsJson = False,
) -> None:
    """List runs: how they stand, and what came of them."""
    with reported_errors():
        from finetune.commands import runs as story

        found = story.list_runs(folder, order=sort, pattern=filter, state=state)
        if as_json:
            print_result(story.to_json(found))
        else:
            story.show_runs(found, folder, display_for(False))


@app.command()
def compare(
    runs: RunsToCompare,
    html: ComparisonPage = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what differs between runs, and whether it is chance."""
    with reported_errors():
        check_output_path("--html", html)
        with quick_torch_imports():
            from finetune.commands.compare.compare import compare_runs
            from finetune.commands.compare.show import show_comparison

        display = display_for(as_json)
        compared = compare_runs(runs, device=device, display=display, pictures=html is not None)
        if html is not None:
            from finetune.commands.compare.page import comparison_page

            write_file(html, comparison_page(compared))
        if as_json:
            print_result(json.dumps(compared.to_dict()))
        else:
            show_comparison(compared, display)
        if html is not None:
            display.say(f"\npage    {html}")
