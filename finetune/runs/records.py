"""What the JSON files of a run must hold, checked where they are read: damage is named by file and key."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from finetune.choices import Precision, SixteenBit
from finetune.errors import CheckpointError
from finetune.runs.directory import Run
from finetune.runs.names import CLASSES, REPORT, STARTED, STATUS
from finetune.text import shortened

STATES = ("running", "done", "stopped", "interrupted", "diverged", "failed")

ADVICE = "Restore the file from a copy, or train again; the files of a run cannot be edited."

Check = Callable[[Any], bool]


def read_status(run: Run) -> dict[str, Any]:
    """Read how a run stands or ended.

    Raises:
        RunError: there is no such file.
        CheckpointError: it is not what a run writes, such as a state that there is not.
    """
    return _read(run, STATUS, {"state": lambda state: state in STATES})


def read_started(run: Run) -> dict[str, Any]:
    """Read what a run began with, of this version or of another one.

    Raises:
        RunError: there is no such file.
        CheckpointError: it is not what a run writes.
    """
    return _read(run, STARTED, {})


def read_beginning(run: Run) -> dict[str, Any]:
    """Read what a run of this version began with.

    Raises:
        RunError: there is no such file.
        CheckpointError: it is not what a run writes.
    """
    checks: dict[str, Check] = {
        "config": _is_text,
        "precision": lambda precision: precision in get_args(Precision),
        "environment": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
        "inexact": _is_texts,
    }
    return _read(run, STARTED, checks)


def read_report(run: Run) -> dict[str, Any]:
    """Read the outcome of a finished run.

    Raises:
        RunError: there is no such file.
        CheckpointError: it is not what a run writes.
    """
    scores = ("val_loss", "val_accuracy", "val_map")
    report = _read(run, REPORT, {"best": _is_mapping, "epochs": _is_count, "seconds": _is_number})
    check_record(report["best"], dict.fromkeys(scores, _is_number), run / REPORT, "best.")
    return report


def read_classes(run: Run) -> list[str]:
    """Read the class names in the order of the model's outputs.

    Raises:
        RunError: there is no such file.
        CheckpointError: it is not what a run writes.
    """
    names = run.read_json(CLASSES)
    if not _is_texts(names):
        raise CheckpointError(f"{run / CLASSES} is damaged or was changed: it holds no names.\n{ADVICE}")
    found: list[str] = names
    return found


def check_description(description: Mapping[str, Any], path: Path) -> None:
    """Refuse a content of model.json that no run has written; the model's own fields are checked elsewhere.

    Raises:
        CheckpointError: names the first key with a value that cannot be.
    """
    check_record(description, {"model": _is_mapping}, path)
    classes = description["model"].get("classes")
    checks: dict[str, Check] = {
        "class_names": lambda names: (
            _is_texts(names) and len(set(names)) == len(names) == classes and all(names)
        ),
        "batch_size": _is_count,
        "root": lambda root: root is None or (_is_text(root) and "\0" not in root),
        "reading": _is_mapping,
        "columns": _is_mapping,
        "metadata": lambda columns: columns is None or isinstance(columns, list),
        "best": _is_mapping,
    }
    check_record(description, checks, path)
    reading: dict[str, Check] = {
        "max_pixels": _is_count,
        "sixteen_bit": lambda how: how in get_args(SixteenBit),
        "background": lambda colour: (
            isinstance(colour, list)
            and len(colour) == 3
            and all(_is_whole(c) and 0 <= c <= 255 for c in colour)
        ),
    }
    check_record(description["reading"], reading, path, "reading.")
    check_record(description["best"], {"stage": _is_text, "epoch": _is_count}, path, "best.")
    if not all(map(_names_columns, description["columns"].values())):
        raise _cannot_be("columns", description["columns"], path)
    if "temperature" in description:
        check_record(description, {"temperature": lambda t: _is_number(t) and t > 0}, path)


def check_record(value: Any, checks: Mapping[str, Check], path: Path, above: str = "") -> None:
    """Refuse what is no JSON object, or one in which a key is missing or has a value that cannot be.

    Raises:
        CheckpointError: names the file and the key.
    """
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged or was changed: it holds no JSON object.\n{ADVICE}")
    for key, fits in checks.items():
        if key not in value:
            raise CheckpointError(f"{path} is damaged or was changed: it has no {above}{key}.\n{ADVICE}")
        if not fits(value[key]):
            raise _cannot_be(above + key, value[key], path)


def _cannot_be(key: str, value: object, path: Path) -> CheckpointError:
    shown = shortened(repr(value))
    return CheckpointError(f"{path} is damaged or was changed: {key} cannot be {shown}.\n{ADVICE}")


def _read(run: Run, name: str, checks: Mapping[str, Check]) -> dict[str, Any]:
    value = run.read_json(name)
    check_record(value, checks, run / name)
    record: dict[str, Any] = value
    return record


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and 1 <= value < 2**63


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _names_columns(value: object) -> bool:
    return value is None or isinstance(value, str | bool | dict) or _is_texts(value)
