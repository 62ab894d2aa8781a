"""Hand the events of a training to loggers, none of which can stop it."""

import importlib.util
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finetune.choices import LoggerName
from finetune.errors import ConfigError, ResourceError
from finetune.loggers.logger import Logger, RunFacts
from finetune.loggers.mlflow import MlflowLogger
from finetune.loggers.records import EventReader, Record
from finetune.loggers.tensorboard import TensorBoardLogger
from finetune.loggers.wandb import WandbLogger
from finetune.machine.files import write_json
from finetune.text import shortened

IDENTITY = "loggers.json"
"""the file of a run that holds what its loggers know it by"""

_BUILDERS: Mapping[LoggerName, Callable[[], Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}

_EVERY = 5.0  # seconds between two writes
_SHARE = 0.02  # part of the time that writing may take, 0–1

# What is raised when a disk, a network, a store or another package fails. The loggers are not ours, and what
# they do must not end a training; each adds errors of its own.
_FAILURES: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, EOFError),
    ResourceError,
)


def require_loggers(names: Sequence[LoggerName]) -> None:
    """Refuse to begin without the packages of the loggers.

    Raises:
        ConfigError: some are not installed.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"loggers: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed.\n"
            f"Install it: pip install 'finetune-vision[{','.join(missing)}]'; or leave it out of loggers."
        )


@dataclass
class _Sink:
    name: str
    logger: Logger
    marks: dict[str, int] | None = None
    """None until it is open"""


@dataclass
class Loggers:
    """Takes the events of a training, and hands them to every logger that works, some seconds' worth at once.

    What a store already has of an earlier process is not sent again: training that is resumed repeats the
    steps since the last checkpoint, to the same numbers.
    """

    sinks: list[_Sink]
    facts: RunFacts
    warn: Callable[[str], None]
    _reader: EventReader = field(default_factory=EventReader)
    _waiting: list[Record] = field(default_factory=list)
    _next_write: float = 0.0

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event, as events.jsonl has it, or an epoch; those of earlier processes come first."""
        if not self.sinks:
            return
        self._waiting += self._reader.read(event)
        if time.monotonic() >= self._next_write:
            self.flush()

    def flush(self) -> None:
        """Hand on what waits."""
        began = time.monotonic()
        for sink in list(self.sinks):
            self._guarded(sink, self._write)
        self._waiting.clear()
        took = time.monotonic() - began
        self._next_write = began + max(_EVERY, took / _SHARE)

    def close(self, state: str, best: Mapping[str, Any]) -> None:
        """Hand on what waits and the best epoch, and say how the training has ended."""

        def end(sink: _Sink) -> None:
            if sink.marks is not None:
                sink.logger.close(state)

        if best and self.sinks:
            self._waiting += self._reader.read({**best, "event": "best"})
        if self._waiting:
            self.flush()
        for sink in list(self.sinks):
            self._guarded(sink, end)
        self.sinks.clear()

    def _write(self, sink: _Sink) -> None:
        if sink.marks is None:
            sink.marks = dict(sink.logger.open(replace(self.facts, id=_identity(self.facts.directory))))
        new = []
        for step, values in self._waiting:
            kept = {name: value for name, value in values.items() if step > sink.marks.get(name, -1)}
            if kept:
                new.append(Record(step, kept))
            sink.marks |= dict.fromkeys(kept, step)
        if new:
            sink.logger.write(new)

    def _guarded(self, sink: _Sink, act: Callable[[_Sink], None]) -> None:
        """Do something with a logger; one that fails is left out from then on."""
        try:
            act(sink)
        except _FAILURES + sink.logger.errors as error:
            self.sinks.remove(sink)
            reason = shortened(str(error).strip().partition("\n")[0], 200) or type(error).__name__
            self.warn(
                f"{sink.name}: {reason}\nTraining goes on without it; events.jsonl holds everything, and "
                "a resumed training sends what is missing."
            )


def open_loggers(
    names: Sequence[LoggerName], directory: Path, config: Mapping[str, Any], warn: Callable[[str], None]
) -> Loggers:
    """Return what takes the events of a run; stores are opened with the first of them.

    Args:
        names: the loggers; one that is named twice is opened once.
        directory: that of the run.
        config: every value of its config, by dotted key.
        warn: shows that one has failed.
    """
    sinks = [_Sink(name, _BUILDERS[name]()) for name in dict.fromkeys(names)]
    return Loggers(sinks, RunFacts(directory, directory.absolute().name, config), warn)


def _identity(directory: Path) -> str:
    """Return what the loggers know a run by; a run that was moved, or resumed elsewhere, keeps it."""
    path = directory / IDENTITY
    try:
        return str(json.loads(path.read_bytes())["id"])
    except FileNotFoundError:
        write_json(path, {"id": secrets.token_hex(4)})
        return str(json.loads(path.read_bytes())["id"])
