"""Trials on this machine: one process that trains one after the other, or several that share a study."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from finetune.commands.sweep.folder import SweepFolder
from finetune.commands.sweep.study import Claim, SweepStudy, TrialRecord
from finetune.commands.sweep.trial import TrialEnd, best_of_others, run_trial
from finetune.errors import FinetuneError, ResourceError, RunError, Stopped, error_of
from finetune.machine.cores import usable_cores
from finetune.machine.signals import StopSignals

_SAME = 3  # failures in a row with one message: no other trial would fare better
_LOOK = 0.5  # seconds between two looks at the study, while other processes train

Tell = Callable[[TrialRecord], None]
"""Takes a trial that has ended."""


@dataclass(frozen=True)
class Until:
    """When no trial begins any more."""

    trials: int | None
    deadline: float | None
    """by `time.time`"""

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.time() >= self.deadline


class StudyBoard:
    """The epochs of all trials, in the study."""

    def __init__(self, study: SweepStudy) -> None:
        self._study = study

    def report(self, number: int, epochs: Mapping[int, float]) -> None:
        """Make the epochs of a trial known."""
        self._study.report(number, epochs)

    def others(self, number: int, epoch: int) -> Mapping[int, float]:
        """Return the best so far of every other trial that has had as many epochs, by its number."""
        known = {
            record.number: record.epochs for record in self._study.records() if record.status != "failed"
        }
        return best_of_others(known, number, epoch, maximises=self._study.plan.maximises)


def end_trial(study: SweepStudy, claim: Claim, end: TrialEnd) -> None:
    """Write down how a trial has ended, and let it go."""
    study.note(claim.number, **(end.facts or {}))
    study.end(claim.number, end.status, end.value)
    claim.lock.release()


@dataclass
class Failures:
    """Notices that trials fail for a reason that the values of a trial have nothing to do with."""

    last: tuple[int, str] = (0, "")
    count: int = 0

    def add(self, end: TrialEnd) -> None:
        """Take the end of a trial.

        Raises:
            FinetuneError: three in a row failed with the same message.
        """
        facts = end.facts or {}
        told = (facts["exit_code"], facts["error"]) if end.status == "failed" else (0, "")
        self.count = self.count + 1 if told == self.last and told[0] else int(bool(told[0]))
        self.last = told
        if self.count >= _SAME:
            message = f"{_SAME} trials in a row failed with the same error: {told[1]}"
            raise error_of(told[0], message, otherwise=RunError)


def work(study: SweepStudy, until: Until, tell: Tell) -> None:
    """Train one trial after the other until none is left.

    Raises:
        Stopped: a signal came; the trial at hand can be resumed.
        FinetuneError: trials fail for a reason that no other values would change.
    """
    board, failures = StudyBoard(study), Failures()
    with StopSignals() as stop:
        try:
            while not until.is_over:
                claim = study.claim(until.trials)
                if claim is None:
                    return
                end = _run(study, claim, board)
                end_trial(study, claim, end)
                tell(study.records()[claim.number])
                failures.add(end)
        except KeyboardInterrupt:
            if stop.received is None or stop.insisted:
                raise
            raise Stopped(f"Stopped by {stop.received}.") from None


def _run(study: SweepStudy, claim: Claim, board: StudyBoard) -> TrialEnd:
    """Run a trial; one that ends in a bug of ours is not left to be run again."""
    known = False
    try:
        end = run_trial(study.plan, study.folder, claim.number, claim.values, board)
        known = True
        return end
    except (Stopped, FinetuneError, KeyboardInterrupt, SystemExit):
        known = True
        raise
    finally:
        if not known:
            facts = {"error": "a bug: its traceback was printed where it ran", "exit_code": 1}
            end_trial(study, claim, TrialEnd("failed", None, facts))


def work_in_processes(study: SweepStudy, until: Until, workers: int, tell: Tell) -> None:
    """Train in several processes, each with its share of the cores, and tell what they have done.

    Raises:
        Stopped: a signal came; trials at hand can be resumed.
        FinetuneError: what ended a process, where it ended all.
    """
    context = multiprocessing.get_context("spawn")
    directory, told = study.folder.directory, {r.number for r in study.records() if r.status != "running"}
    queue = context.SimpleQueue()
    with StopSignals() as stop:
        processes: list[SpawnProcess] = []
        try:
            for number in range(workers):
                arguments = (directory, until, number, workers, queue)
                processes.append(context.Process(target=_be_worker, args=arguments))
                processes[-1].start()
            while any(process.is_alive() for process in processes):
                wait([process.sentinel for process in processes if process.is_alive()], _LOOK)
                _tell_new(study, told, tell)
        except KeyboardInterrupt:
            _stop(processes)
            _tell_new(study, told, tell)
            if stop.insisted:
                raise
            raise Stopped(f"Stopped by {stop.received or 'Ctrl-C'}.") from None
        finally:
            _stop(processes)
    if not queue.empty():
        exit_code, message = queue.get()
        raise error_of(exit_code, message, otherwise=RunError)
    failed = next((process.exitcode for process in processes if process.exitcode), 0)
    if failed:
        raise ResourceError(
            f"A worker ended with {failed}; a negative number is the signal that killed it.\n"
            "Its trial can be resumed; where memory ran out, with fewer --workers."
        )


def _stop(processes: list[SpawnProcess]) -> None:
    """Ask processes to stop, and wait until they have saved."""
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join()


def _tell_new(study: SweepStudy, told: set[int], tell: Tell) -> None:
    for record in study.records():
        if record.status != "running" and record.number not in told:
            told.add(record.number)
            tell(record)


def _be_worker(
    directory: Path,
    until: Until,
    number: int,
    workers: int,
    queue: "multiprocessing.SimpleQueue[tuple[int, str]]",
) -> None:
    """Train trials in a process of its own, which ends with its parent."""
    if hasattr(os, "setpgid"):  # a terminal's Ctrl-C is for the parent, which passes it on once
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    take_share_of_cores(number, workers)
    folder = SweepFolder(directory)
    try:
        with folder.busy():
            work(SweepStudy(folder, folder.plan()), until, lambda record: None)
    except (Stopped, KeyboardInterrupt):
        pass
    except FinetuneError as error:
        queue.put((error.exit_code, str(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def take_share_of_cores(number: int, workers: int) -> None:
    """Leave other workers their cores: torch, loaders and thread pools then count those of this process."""
    share = max(1, usable_cores() // workers)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[number * share : (number + 1) * share] or [cores[number % len(cores)]]
        with suppress(OSError):
            os.sched_setaffinity(0, own)
    import torch

    torch.set_num_threads(min(share, torch.get_num_threads()))
