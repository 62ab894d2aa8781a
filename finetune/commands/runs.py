"""The story of `finetune runs`: which trainings there are, how they stand, and what came of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from finetune.choices import RunOrder
from finetune.config.config import Config
from finetune.config.load import parse_config
from finetune.display import Display, duration
from finetune.errors import DataError, FinetuneError
from finetune.runs import REPORT, STARTED, STATUS
from finetune.text import counted, printable

_DEEPEST = 4  # folders below the one that is looked through


@dataclass(frozen=True)
class ListedRun:
    """One run, by the files that it has written."""

    run_dir: str
    when: str
    """time of its last sign of life, ISO 8601; empty where it has left none"""
    state: str
    """as in status.json; `unknown` where that cannot be read"""
    arch: str
    data: str
    accuracy: float | None
    """of its best model on the validation images, 0–1; None before its end"""
    map: float | None
    loss: float | None
    epochs: int | None
    seconds: float | None


_VALUES: Mapping[RunOrder, Callable[[ListedRun], Any]] = {
    "when": lambda run: run.when,
    "accuracy": lambda run: run.accuracy,
    "map": lambda run: run.map,
    "loss": lambda run: None if run.loss is None else -run.loss,
    "time": lambda run: None if run.seconds is None else -run.seconds,
    "name": lambda run: run.run_dir,
}


def list_runs(folder: Path, *, order: RunOrder, pattern: str | None, state: str | None) -> list[ListedRun]:
    """Find the runs in a folder and below it.

    Args:
        folder: the folder, or a run itself.
        order: what they are sorted by: the newest, best or shortest first; or by name.
        pattern: a part of the name, the architecture or the data, or a shell pattern with `*`.
        state: only runs of this state.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder.\nName the folder of your runs (output.dir): finetune runs DIR"
        )
    runs = [_read(directory) for directory in _run_directories(folder, _DEEPEST)]
    runs = [run for run in runs if state in (None, run.state) and _matches(run, pattern)]
    runs.sort(key=lambda run: run.run_dir)
    if order == "name":
        return runs
    value = _VALUES[order]
    known = [run for run in runs if value(run) is not None]
    known.sort(key=value, reverse=True)
    return [*known, *(run for run in runs if value(run) is None)]


def _run_directories(folder: Path, deepest: int) -> list[Path]:
    if (folder / STARTED).is_file():
        return [folder]
    if not deepest:
        return []
    try:
        below = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []
    return [run for path in below for run in _run_directories(path, deepest - 1)]


def _read(directory: Path) -> ListedRun:
    started, status = _document(directory / STARTED), _document(directory / STATUS)
    report = _document(directory / REPORT) if status.get("state") == "done" else {}
    config = _config(started, directory)
    scores, best = _part(report, "val"), _part(report, "best")
    return ListedRun(
        run_dir=str(directory),
        when=_local(status.get("time")),
        state=str(status.get("state", "unknown")),
        arch="" if config is None else config.model.arch,
        data="" if config is None else config.data.path,
        accuracy=_number(scores.get("accuracy", best.get("val_accuracy"))),
        map=_number(scores.get("map", best.get("val_map"))),
        loss=_number(scores.get("loss", best.get("val_loss"))),
        epochs=report.get("epochs") if isinstance(report.get("epochs"), int) else None,
        seconds=_number(report.get("seconds")),
    )


def _document(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where it cannot be read: a list is no place to stop at that."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _config(started: Mapping[str, Any], directory: Path) -> Config | None:
    try:
        return parse_config(str(started.get("config")), str(directory / STARTED))
    except FinetuneError:  # of another version
        return None


def _part(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _local(time: Any) -> str:
    try:
        return datetime.fromisoformat(time).astimezone().isoformat(timespec="seconds")
    except (TypeError, ValueError):
        return ""


def _matches(run: ListedRun, pattern: str | None) -> bool:
    if pattern is None:
        return True
    texts = (Path(run.run_dir).name, run.arch, run.data)
    if any(sign in pattern for sign in "*?["):
        return any(fnmatchcase(text, pattern) for text in texts)
    return any(pattern.casefold() in text.casefold() for text in texts)


def to_json(runs: Sequence[ListedRun]) -> str:
    """Return the runs as `runs --json` documents them."""
    return json.dumps([asdict(run) for run in runs])


def show_runs(runs: Sequence[ListedRun], folder: Path, display: Display) -> None:
    """Show the runs in a table."""
    if not runs:
        display.say(f"no runs in {printable(str(folder))}")
        return
    rows = [
        (
            _below(run.run_dir, folder),
            run.when[:16].replace("T", " ") or "–",
            run.state,
            "–" if run.accuracy is None else f"{run.accuracy:.2%}",
            "–" if run.loss is None else f"{run.loss:.4f}",
            "–" if run.seconds is None else duration(run.seconds),
            run.arch,
            run.data,
        )
        for run in runs
    ]
    display.table(
        ("run", "when", "state", "accuracy", "loss", "took", "architecture", "data"),
        rows,
        paths=("run", "data"),
        least_important=("data", "loss", "took", "when"),
    )
    display.say(counted(len(runs), "run"))


def _below(run_dir: str, folder: Path) -> str:
    relative = Path(run_dir).relative_to(folder)
    return run_dir if relative == Path() else str(relative)
