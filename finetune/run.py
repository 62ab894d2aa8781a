"""The run directory: what its files are called, how they are written, and how they are read back.

Nothing in it executes code when it is loaded: safetensors, JSON, CSV and YAML only.
"""

import contextlib
import csv
import io
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from finetune.atomic import reported_disk_errors, write_bytes, write_csv, write_file, write_json
from finetune.data import Split
from finetune.errors import CheckpointError, RunError
from finetune.model.weights import RUN_MODEL, RUN_WEIGHTS

MODEL = RUN_MODEL
WEIGHTS = RUN_WEIGHTS
CONFIG = "config.yaml"
CLASSES = "classes.json"
SPLIT = "split.csv"
HISTORY = "history.csv"
EVENTS = "events.jsonl"
STATUS = "status.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
LR_FIND = "lr_find-{stage}.json"
LR_FIND_PLOT = "lr_find-{stage}.png"
LOCK = ".lock"

SPLIT_HEADER = ("image", "split", "class")

_FORMULA_STARTS = ("=", "+", "-", "@", "'")


class Run:
    """One run directory, held by this process while it is open for writing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()
        if not _is_occupied(self.directory):  # nothing was begun: leave nothing behind
            (self / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.directory.rmdir()

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    def write_config(self, text: str) -> None:
        """Write the resolved config."""
        write_file(self / CONFIG, text)

    def write_classes(self, class_names: Sequence[str]) -> None:
        """Write the class names in the order of the model's outputs."""
        write_json(self / CLASSES, list(class_names))

    def write_split(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Write (image name, split, class) of every image."""
        protected = ([_protect(cell) for cell in row] for row in rows)
        write_csv(self / SPLIT, SPLIT_HEADER, protected)

    def read_split(self) -> list[tuple[str, Split, str]]:
        """Read (image name, split, class) of every image.

        Raises:
            RunError: the file is missing or not what `write_split` wrote.
        """
        rows = [tuple(map(_unprotect, row)) for row in csv.reader(io.StringIO(self._read(SPLIT)))]
        good = rows[:1] == [SPLIT_HEADER] and all(len(r) == 3 and r[1] in get_args(Split) for r in rows[1:])
        if not good:
            raise RunError(f"{self / SPLIT} is not the split of a run; was it changed by hand?")
        return cast(list[tuple[str, Split, str]], rows[1:])

    def write_history(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write one row per epoch; all rows have the keys of the first."""
        write_csv(self / HISTORY, tuple(rows[0]), (list(row.values()) for row in rows))

    def write_lr_find(self, stage: str, found: Mapping[str, object], picture: bytes) -> None:
        """Write how the rate of a stage was found: the numbers and the plot."""
        write_json(self / LR_FIND.format(stage=stage), found)
        write_bytes(self / LR_FIND_PLOT.format(stage=stage), picture)

    def read_lr_finds(self, stages: Iterable[str]) -> list[tuple[dict[str, Any], bytes]]:
        """Read how rates were found, for those of some stages that were: the numbers and the plot."""
        return [
            (
                self.read_json(LR_FIND.format(stage=stage)),
                (self / LR_FIND_PLOT.format(stage=stage)).read_bytes(),
            )
            for stage in stages
            if (self / LR_FIND.format(stage=stage)).exists()
        ]

    def append_events(self, events: Iterable[Mapping[str, object]]) -> None:
        """Add typed events, one JSON object a line."""
        with reported_disk_errors(self / EVENTS), open(self / EVENTS, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)

    def write_status(self, state: str, exit_code: int, **facts: object) -> None:
        """Write how the run stands or ended; the file launchers look at."""
        write_json(self / STATUS, {"state": state, "exit_code": exit_code, **facts, "time": _now()})

    def write_report(self, report: Mapping[str, object]) -> None:
        """Write the outcome for programs."""
        write_json(self / REPORT, report)

    def write_report_page(self, page: str) -> None:
        """Write the outcome for people."""
        write_file(self / REPORT_PAGE, page)

    def save_model(self, state: Mapping[str, torch.Tensor], description: Mapping[str, object]) -> None:
        """Save the weights, and all that is needed to rebuild the model and its preprocessing."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_bytes(self / WEIGHTS, save_tensors(tensors, metadata={"format": "pt"}))
        write_json(self / MODEL, description)

    def load_model(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Load what `save_model` saved.

        Raises:
            RunError: not the directory of a run that has a model.
            CheckpointError: the files are damaged.
        """
        path = self / WEIGHTS
        description = self.read_json(MODEL)
        try:
            return load_tensors(path.read_bytes()), description
        except FileNotFoundError:
            raise RunError(f"{path} is missing: the run ended before its first epoch was done.") from None
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}). Train again, or restore the file.") from None

    def read_config(self) -> str:
        """Read the resolved config's text."""
        return self._read(CONFIG)

    def read_json(self, name: str) -> Any:
        """Read one of the run's JSON files.

        Raises:
            RunError: there is no such file.
            CheckpointError: it does not hold JSON.
        """
        try:
            return json.loads(self._read(name))
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{self / name} is damaged: {error}.") from None

    def _read(self, name: str) -> str:
        try:
            return (self / name).read_text(encoding="utf-8", errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.directory} is not a finished run: it has no {name}.\n"
                f"Name a directory that `finetune train` made{_nearby_runs(self.directory)}."
            ) from None


def create_run(directory: Path | None, *, parent: Path, name: str, overwrite: bool = False) -> Run:
    """Make a new run directory and hold it.

    Args:
        directory: the directory asked for, or None for `parent/<name>-<time>`.
        parent: folder of the unnamed runs.
        name: what an unnamed run is called after.
        overwrite: move a directory that is in the way to `<directory>.old-<time>`.

    Raises:
        RunError: the directory holds something already, is held by another process, or cannot be written.
    """
    directory = directory if directory is not None else _unused(parent / f"{name}-{_stamp()}")
    run = Run(directory)
    try:
        if overwrite and _is_occupied(directory):
            _hold(directory).close()
            directory.rename(_unused(directory.with_name(f"{directory.name}.old-{_stamp()}")))
        directory.mkdir(parents=True, exist_ok=True)
        if _is_occupied(directory):
            raise RunError(
                f"{directory} is not empty; results are never overwritten unasked.\n"
                "Name another --run-dir, or add --overwrite to move it aside."
            )
        run._lock = _hold(directory)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(
            f"Cannot write the run directory {directory}: {reason}. Set output.dir or --run-dir."
        ) from None
    return run


def open_run(directory: Path) -> Run:
    """Open an existing run directory for reading."""
    return Run(directory)


def _hold(directory: Path) -> IO[str]:
    """Lock the directory for this process; the lock vanishes with the process, however it ends."""
    file = open(directory / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  (held as long as the run)
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise RunError(
                f"{directory} is in use by {holder or 'another process'}. "
                "Wait for it, or name another --run-dir."
            ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename if os.name == 'posix' else 'this machine'}")
    file.flush()
    return file


def _is_occupied(directory: Path) -> bool:
    return directory.exists() and any(entry.name != LOCK for entry in directory.iterdir())


def _unused(directory: Path) -> Path:
    candidate, number = directory, 2
    while candidate.exists():
        candidate, number = directory.with_name(f"{directory.name}-{number}"), number + 1
    return candidate


def _nearby_runs(directory: Path) -> str:
    folders = (directory, directory.parent, Path("runs"))
    found = sorted(
        {str(path.parent) for folder in folders if folder.is_dir() for path in folder.glob(f"*/{MODEL}")}
    )
    return f", for instance {found[-1]}" if found else ""


def _protect(cell: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def _unprotect(cell: str) -> str:
    return cell[1:] if cell.startswith("'") else cell


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
