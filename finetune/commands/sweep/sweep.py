"""Begin a sweep, join one that runs, or resume one; and look at what it has found."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path

from finetune.commands.settings import is_run
from finetune.commands.sweep.folder import PAGE, RECORD, SweepFolder
from finetune.commands.sweep.local import Until, work, work_in_processes
from finetune.commands.sweep.page import sweep_page
from finetune.commands.sweep.result import (
    SweepResult,
    TrialResult,
    read_result,
    result_of,
    show_summary,
    trial_line,
)
from finetune.commands.sweep.study import SweepStudy, TrialRecord, require_optuna
from finetune.config.load_sweep import load_sweep
from finetune.config.sweep_plan import SweepPlan
from finetune.display import Display
from finetune.errors import ConfigError, Interrupted, RunError, Stopped, error_of
from finetune.machine.files import write_file
from finetune.runs.opening import newest_folder, unused_folder
from finetune.text import counted, expanded


@dataclass(frozen=True)
class SweepOptions:
    """What may be said to `finetune sweep`."""

    sweep_dir: Path | None = None
    """None for a new folder in `output.dir` of the base"""
    resume: bool = False
    trials: int | None = None
    """in place of those of the file"""
    minutes: float | None = None
    workers: int = 1
    """processes, or with Ray trials at a time"""


def open_sweep(path: Path) -> SweepStudy:
    """Open a sweep to look at it.

    Raises:
        ConfigError: no sweep is there; Optuna is not installed.
        CheckpointError: it is damaged.
    """
    require_optuna()
    folder = SweepFolder(path)
    if isdir(path) and not folder.exists and is_run(path):
        raise ConfigError(f"{path} is a run, not a sweep.\nTo list what runs have come to: finetune runs")
    return SweepStudy(folder, folder.plan())


def sweep(
    path: Path, options: SweepOptions, display: Display, tell: Callable[[TrialResult], None]
) -> SweepResult:
    """Run trials until all are done or the time is over, and leave a page.

    Args:
        path: a sweep file, or the folder of a sweep to resume.
        options: where, how many, how long.
        display: where to show trials as they end.
        tell: takes each of them.

    Raises:
        Stopped: a signal came; the sweep can be resumed.
        FinetuneError: what the user can fix; the error of the last trial where all have failed.
    """
    study = _open(path, options, display)
    until = _until(study.plan, options)
    view = read_result(study)

    def show(record: TrialRecord) -> None:
        result = result_of(record, study.plan, study.folder)
        display.say(trial_line(result, view))
        tell(result)

    with study.folder.busy(), _saying_how_to_resume(study):
        _announce(study, until, display)
        if study.plan.file.engine.name == "ray":
            from finetune.commands.sweep.ray_engine import work_on_ray

            work_on_ray(study, until, options.workers, show)
        elif options.workers > 1:
            work_in_processes(study, until, options.workers, show)
        else:
            work(study, until, show)
    return finish(study, display)


def finish(study: SweepStudy, display: Display) -> SweepResult:
    """Write the page, and say what was found.

    Raises:
        FinetuneError: every trial has failed; the error is that of the last.
    """
    result = read_result(study)
    with study.folder.locked():  # workers may end at the same moment
        write_file(study.folder / PAGE, sweep_page(result, study.folder / PAGE))
    display.say("")
    show_summary(result, display)
    display.say(f"page    {study.folder / PAGE}")
    failed = [record for record in study.records() if record.status == "failed"]
    if failed and len(failed) == len(result.trials):
        last = failed[-1].facts
        message = f"Every trial has failed; the last: {last['error']}"
        raise error_of(last["exit_code"], message, otherwise=RunError)
    return result


def _open(path: Path, options: SweepOptions, display: Display) -> SweepStudy:
    """Find the folder of the sweep, and begin, join or resume it.

    Raises:
        RunError: it holds another sweep, or one that is not running and was not to be resumed.
        ConfigError: what was named is neither a sweep file nor a sweep; what it needs is not installed.
    """
    if isdir(path):
        if options.sweep_dir is not None:
            raise ConfigError(f"{path} is the sweep to resume; leave out --sweep-dir.")
        return open_sweep(path)
    plan = load_sweep(path)
    if plan.file.engine.name == "ray":
        from finetune.commands.sweep.ray_engine import require_ray

        require_ray()  # its extra brings Optuna as well
    require_optuna()
    parent = expanded(plan.base.output.dir)
    directory = options.sweep_dir
    if directory is None:
        newest = newest_folder(parent, path.stem, RECORD) if options.resume else None
        directory = newest or unused_folder(parent, path.stem)
    folder = SweepFolder(directory)
    begun = folder.exists
    if not begun:
        if folder.is_foreign:
            raise RunError(f"{directory} is not empty, and holds no sweep.\nName another --sweep-dir.")
        begun = not folder.begin(plan)
    if begun:
        folder.check_same(plan)
        if not options.resume and not folder.is_busy:
            raise RunError(
                f"{directory} holds a sweep already; results are not mixed unasked.\n"
                "Add --resume to go on with it, or name another --sweep-dir."
            )
    return SweepStudy(folder, plan)


def _until(plan: SweepPlan, options: SweepOptions) -> Until:
    trials = options.trials or plan.file.trials
    minutes = options.minutes or plan.file.minutes
    if trials is None and minutes is None and plan.file.sampler.name != "grid":
        raise ConfigError(
            f"{plan.texts.source}: it is not said how long to search.\n"
            "Add trials: 20 or minutes: 30, or --trials or --minutes."
        )
    return Until(trials, None if minutes is None else time.time() + 60 * minutes)


def _announce(study: SweepStudy, until: Until, display: Display) -> None:
    records, plan = study.records(), study.plan
    ended = sum(record.status != "running" for record in records)
    many = "trials while there is time" if until.trials is None else counted(until.trials, "trial")
    so_far = f", {ended} of them ended before" if ended else ""
    display.say(f"sweep   {study.folder.directory}: {many}{so_far}, {plan.file.sampler.name}")
    if not records and plan.file.sampler.name != "grid":
        is_in = plan.base_samples() is not None
        display.say(
            f"base    {'is trial 0' if is_in else 'is outside of the space, so no trial is the base'}"
        )
    display.say(f"{'trial':>5}  {'status':<6}  {'value':>8}  {'took':>6}  values")


@contextmanager
def _saying_how_to_resume(study: SweepStudy) -> Iterator[None]:
    how = f"Go on with: finetune sweep {shlex.quote(str(study.folder.directory))} --resume"
    try:
        yield
    except Stopped as stop:
        first = str(stop).partition("\n")[0]
        raise Stopped(f"{first} No trial is lost.\n{how}") from None
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(f"Interrupted at once; a trial goes on from its last checkpoint.\n{how}") from None
