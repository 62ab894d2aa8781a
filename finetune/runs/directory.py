"""One run directory: its files, written and read."""

import contextlib
import csv
import errno
import io
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from os.path import exists, isdir
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from filelock import BaseFileLock

from finetune.data.quality.fingerprint import Fingerprint
from finetune.errors import CheckpointError, RunError
from finetune.machine.files import (
    json_bytes,
    reported_disk_errors,
    write_bytes,
    write_csv,
    write_file,
    write_json,
)
from finetune.runs.checkpoints import CheckpointFolder
from finetune.runs.checksummed import dump_checksummed, load_checksummed
from finetune.runs.digests import TRIES, WAIT, find_valid, read_checked, read_list, write_covered
from finetune.runs.names import (
    CHECKPOINTS,
    CLASSES,
    CONFIG,
    EVENTS,
    FILES,
    HISTORY,
    KNOWN,
    LOCK,
    LR_FIND,
    LR_FIND_PLOT,
    MODEL,
    REPORT,
    REPORT_PAGE,
    SPLIT,
    STARTED,
    STATUS,
    WEIGHTS,
)
from finetune.runs.tables import SplitRow, files_bytes, parse_files, parse_split, split_bytes


class Run:
    """One run directory, held by this process while it is open for writing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: BaseFileLock | None = None

    def hold(self, lock: BaseFileLock) -> None:
        """Keep the lock on the directory until the run is left."""
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()
        if not is_occupied(self.directory):  # nothing was begun: leave nothing behind
            (self / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.directory.rmdir()

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The states that training can resume from."""
        return CheckpointFolder(self / CHECKPOINTS)

    def write_beginning(
        self,
        *,
        class_names: Sequence[str],
        split: tuple[Sequence[str], Iterable[Sequence[str]]],
        files: Mapping[str, Fingerprint],
        started: Mapping[str, object],
    ) -> None:
        """Write what the run begins with: all that resuming compares, with digests.

        Args:
            class_names: in the order of the model's outputs.
            split: header, and a row of image name, split, class and metadata for every image.
            files: the fingerprint of every image, to notice what changes.
            started: the config as it was given, and the environment. Its file is written last: where it is,
                there is a run to resume.
        """
        write_covered(
            self.directory,
            {
                CLASSES: json_bytes(list(class_names)),
                SPLIT: split_bytes(*split),
                FILES: files_bytes(files),
                STARTED: json_bytes(started),
            },
        )

    def read_files(self) -> dict[str, Fingerprint]:
        """Read the fingerprint of every image by name."""
        try:
            return parse_files(self._read(FILES))
        except ValueError:
            raise RunError(f"{self / FILES} is not what a run wrote; was it changed by hand?") from None

    def write_config(self, text: str) -> None:
        """Write the resolved config."""
        write_file(self / CONFIG, text)

    def read_split(self) -> list[SplitRow]:
        """Read image name, split, class and metadata of every image.

        Raises:
            RunError: the file is missing or not what a run wrote.
        """
        try:
            return parse_split(self._read(SPLIT))
        except ValueError:
            raise RunError(f"{self / SPLIT} is not the split of a run; was it changed by hand?") from None

    def write_history(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write one row per epoch; all rows have the keys of the first. Without rows there is no file."""
        if rows:
            write_csv(self / HISTORY, tuple(rows[0]), (list(row.values()) for row in rows))
        else:
            (self / HISTORY).unlink(missing_ok=True)

    def read_history(self) -> list[dict[str, str]]:
        """Read a row per epoch so far; none before the first."""
        if not (self / HISTORY).exists():
            return []
        return list(csv.DictReader(io.StringIO(self._read(HISTORY))))

    def write_lr_find(self, stage: str, found: Mapping[str, object], picture: bytes) -> None:
        """Write how the rate of a stage was found: the numbers and the plot."""
        write_json(self / LR_FIND.format(stage=stage), found)
        write_bytes(self / LR_FIND_PLOT.format(stage=stage), picture)

    def read_lr_finds(self, stages: Iterable[str]) -> dict[str, tuple[dict[str, Any], bytes]]:
        """Read how rates were found by an earlier process, for those of some stages that were, by stage."""
        return {
            stage: (
                self.read_json(LR_FIND.format(stage=stage)),
                (self / LR_FIND_PLOT.format(stage=stage)).read_bytes(),
            )
            for stage in stages
            if (self / LR_FIND.format(stage=stage)).exists()
        }

    def append_events(self, events: Iterable[Mapping[str, object]]) -> None:
        """Add typed events, one JSON object a line; all of them or none."""
        lines = "".join(json.dumps(event) + "\n" for event in events)
        with reported_disk_errors(self / EVENTS), open(self / EVENTS, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                written = file.write(lines.encode())
                if written < len(lines.encode()):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(before)
                raise

    def events_size(self) -> int:
        """Return the size of the events so far in bytes, once they have reached the disk."""
        with reported_disk_errors(self / EVENTS), open(self / EVENTS, "a", encoding="utf-8") as file:
            os.fsync(file.fileno())
            return file.tell()

    def cut_events(self, size: int) -> None:
        """Forget the events after the first `size` bytes: what they tell is done again."""
        path = self / EVENTS
        if path.exists() and path.stat().st_size > size:
            with reported_disk_errors(path):
                os.truncate(path, size)

    def read_events(self) -> list[dict[str, Any]]:
        """Read the typed events; a line that is torn, because the process was killed, is passed over."""
        events = []
        for line in self._read(EVENTS).splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    events.append(event)
        return events

    def write_status(self, state: str, exit_code: int, **details: object) -> None:
        """Write how the run stands or ended; the file launchers look at."""
        write_json(self / STATUS, {"state": state, "exit_code": exit_code, **details, "time": _now()})

    def write_report(self, report: Mapping[str, object]) -> None:
        """Write the outcome for programs."""
        write_json(self / REPORT, report)

    def write_report_page(self, page: str) -> None:
        """Write the outcome for people."""
        write_file(self / REPORT_PAGE, page)

    def save_model(self, state: Mapping[str, torch.Tensor], description: Mapping[str, object]) -> None:
        """Save the weights and all that is needed to rebuild the model and its preprocessing, or neither."""
        contents = {WEIGHTS: dump_checksummed(state), MODEL: json_bytes(description)}
        write_covered(self.directory, contents)

    def save_assessment(self, description: Mapping[str, object], known: Mapping[str, torch.Tensor]) -> None:
        """Save what was found out of the model after its training, with its description, or neither."""
        write_covered(self.directory, {MODEL: json_bytes(description), KNOWN: dump_checksummed(known)})

    def load_known(self) -> dict[str, torch.Tensor] | None:
        """Load the features of known images that `save_assessment` saved; None where there are none.

        Raises:
            CheckpointError: the file is damaged, or was changed.
        """
        if not (self / KNOWN).exists():
            return None  # not finished, of an earlier version, or a copy of the model alone
        return load_checksummed(find_valid(self / KNOWN))[0]

    def load_model(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Load what `save_model` saved.

        Raises:
            RunError: not the directory of a run that has a model.
            CheckpointError: the files are damaged, or were changed.
        """
        path = self / WEIGHTS
        for attempt in range(TRIES):
            time.sleep(WAIT * (attempt > 0))
            description = self.read_json(MODEL)
            listed = read_list(self.directory)
            if path.name not in listed:
                raise RunError(f"{path} is missing: the run ended before its first epoch was done.")
            # A training that saves a better model meanwhile must not give this one half of each.
            try:
                tensors, _ = load_checksummed(find_valid(path))
            except FileNotFoundError:  # it has just got its name
                continue
            except CheckpointError:
                if read_list(self.directory) == listed:
                    raise
                continue
            if read_list(self.directory) == listed and self.read_json(MODEL) == description:
                return tensors, description
        raise CheckpointError(f"{path} changes all the time.\nTry again when the training has ended.")

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
        except (ValueError, RecursionError) as error:  # numbers of many digits, and brackets by the thousand
            raise CheckpointError(f"{self / name} is damaged: {error}.") from None

    def _read(self, name: str) -> str:
        try:
            return read_checked(self / name).decode("utf-8", "surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.directory} is not a finished run: it has no {name}.\n"
                f"Name a directory that `finetune train` made{_nearby_runs(self.directory)}."
            ) from None


def is_occupied(directory: Path) -> bool:
    """Tell whether a directory is there and holds anything but a lock."""
    return exists(directory) and any(entry.name != LOCK for entry in directory.iterdir())


def _nearby_runs(directory: Path) -> str:
    folders = (directory, directory.parent, Path("runs"))
    found = sorted(
        {str(path.parent) for folder in folders if isdir(folder) for path in folder.glob(f"*/{MODEL}")}
    )
    return f", for instance {found[-1]}" if found else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
