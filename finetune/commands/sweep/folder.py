"""The folder of a sweep: what it searches, its study, and the locks that say who trains what."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from finetune.commands.sweep.pruning import Decision
from finetune.config.load_sweep import parse_sweep
from finetune.config.sweep_plan import SweepPlan, SweepTexts
from finetune.errors import CheckpointError, ConfigError, RunError
from finetune.machine.files import reported_disk_errors, write_json
from finetune.text import printable, shortened

RECORD, STUDY, JOURNAL, PRUNING, PAGE, TRIALS = (
    "sweep.json",
    "study.db",
    "study.jsonl",
    "pruning.jsonl",
    "report.html",
    "trials",
)
_LOCK, _BUSY = ".lock", "busy"
_FORMAT = 1


class SweepFolder:
    """Where a sweep lies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    @property
    def exists(self) -> bool:
        """Whether a sweep has begun here."""
        return isfile(self / RECORD)

    def run_directory(self, number: int, seed: int, seeds: int) -> Path:
        """Return the run directory of a trial's training; of several each has one below the trial's."""
        trial = self / TRIALS / f"{number:04d}"
        return trial if seeds == 1 else trial / f"seed-{seed}"

    def log_file(self, number: int) -> Path:
        """Return what the trainings of a trial print into."""
        return self / TRIALS / f"{number:04d}.log"

    def begin(self, plan: SweepPlan) -> bool:
        """Write down what is searched, so that it can be resumed though its files change.

        Return False where another process has done so meanwhile.
        """
        with reported_disk_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        with self.locked():
            if self.exists:
                return False
            with reported_disk_errors(self.directory):
                (self / TRIALS).mkdir(exist_ok=True)
            write_json(self / RECORD, {"format": _FORMAT, **asdict(plan.texts)})
            return True

    @property
    def is_foreign(self) -> bool:
        """Whether something else lies here, and not a sweep that is just being begun."""
        if not isdir(self.directory):
            return False
        holds = any(not entry.name.startswith(".") for entry in self.directory.iterdir())
        return holds and not isfile(self / _LOCK) and not self.exists

    def plan(self) -> SweepPlan:
        """Read what is searched.

        Raises:
            ConfigError: no sweep is here.
            CheckpointError: its record is damaged, or of another version.
        """
        path = self / RECORD
        if not self.exists:
            raise ConfigError(
                f"{printable(str(self.directory))}: this is no folder of a sweep; {RECORD} is missing.\n"
                "Name a sweep file to begin one, or the folder that a sweep has written."
            )
        try:
            record: dict[str, Any] = json.loads(path.read_bytes())
            if record.pop("format") != _FORMAT:
                raise CheckpointError(f"{path} was written by another version of finetune.\nUse that one.")
            return parse_sweep(SweepTexts(**record))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is damaged or was changed ({shortened(str(error))}).\nBegin another sweep."
            ) from None

    def check_same(self, plan: SweepPlan) -> None:
        """Refuse to continue with another space or base: values could not be compared.

        Raises:
            RunError: names what differs.
        """
        before, now = self.plan().identity(), plan.identity()
        for name, value in now.items():
            if before[name] != value:
                old, new = _first_difference(before[name], value)
                raise RunError(
                    f"{self.directory} holds a sweep of another {name}: {old}, now {new}.\n"
                    "Restore it, or name another --sweep-dir."
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other process choose a trial meanwhile."""
        with FileLock(self / _LOCK):
            yield

    def hold_trial(self, number: int) -> BaseFileLock | None:
        """Hold a trial, so that no other process trains it; None where another one does.

        The lock vanishes with the process, however it ends: what it held can be resumed at once.
        """
        return _try_lock(self / TRIALS / f".{number:04d}.lock")

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Say that a process works here."""
        number = 0
        while (lock := _try_lock(self / f".{_BUSY}-{number}.lock")) is None:
            number += 1
        try:
            yield
        finally:
            lock.release()

    @property
    def is_busy(self) -> bool:
        """Whether any process works here."""
        for path in self.directory.glob(f".{_BUSY}-*.lock"):
            lock = _try_lock(path)
            if lock is None:
                return True
            lock.release()
        return False

    def log(self, number: int, decision: Decision) -> None:
        """Write down why a trial that was behind was ended, or was not."""
        line = json.dumps({"trial": number, **decision.to_dict()})
        with reported_disk_errors(self / PRUNING), (self / PRUNING).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _try_lock(path: Path) -> BaseFileLock | None:
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _first_difference(before: str, now: str) -> tuple[str, str]:
    ours, theirs = before.splitlines(), now.splitlines()
    for old, new in zip(ours, theirs, strict=False):
        if old != new:
            return shortened(old.strip()), shortened(new.strip())
    return f"{len(ours)} lines", f"{len(theirs)} lines"
