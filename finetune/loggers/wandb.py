"""Weights & Biases: online where there is a key, else files in the run that `wandb sync` uploads."""

import importlib
import json
import netrc
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finetune.loggers.logger import Marks, RunFacts
from finetune.loggers.records import Record

_BLOCK = 32768
_HEADER = struct.Struct("<IHB")
_START = 7  # bytes of the file before its first record


class WandbLogger:
    """Logs a run; each process adds a file of the same run."""

    def __init__(self) -> None:
        self.errors: tuple[type[Exception], ...] = ()
        self._run: Any = None

    def open(self, facts: RunFacts) -> Marks:
        """Read what is there, and resume the run, or begin it."""
        # A server that does not answer would hold up the training for longer.
        os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", "300")
        import wandb
        from google.protobuf.message import DecodeError

        self.errors = (wandb.Error, DecodeError)
        marks: dict[str, int] = {}
        for path in sorted((facts.directory / "wandb").glob("*run-*/run-*.wandb")):
            for row in read_history(path):
                marks |= {name: row["_step"] for name in row if not name.startswith("_")}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "finetune"),
            id=facts.id,
            name=facts.name,
            dir=str(facts.directory),
            config=dict(facts.config),
            resume="allow",
            mode=_mode(),
            # What is printed is ours, the files of the user are not uploaded, and nothing polls the machine.
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
            ),
        )
        return marks

    def write(self, records: Sequence[Record]) -> None:
        """Log rows; those of one step become one."""
        for record in records:
            self._run.log(record.values, step=record.step)

    def close(self, state: str) -> None:
        """Finish the run."""
        self._run.finish(exit_code=0 if state == "done" else 1)


def _mode() -> Any:
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    """Tell whether there is an API key: without one `wandb.init` would ask for it, in the midst of a job."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def read_history(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a `.wandb` file, up to its end or to where a process was killed."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")  # which builds its names itself
    for content in _read_records(path.read_bytes()):
        message = messages.Record.FromString(content)
        if message.WhichOneof("record_type") == "history":
            items = message.history.item
            yield {(one.key or "/".join(one.nested_key)): json.loads(one.value_json) for one in items}


def _read_records(content: bytes) -> Iterator[bytes]:
    """Read a log in LevelDB's format: blocks of 32 KiB, and records in parts that never cross a block."""
    position, whole = _START, b""
    while position + _HEADER.size <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER.size:
            position += left
            continue
        _, length, kind = _HEADER.unpack_from(content, position)
        position += _HEADER.size
        part = content[position : position + length]
        position += length
        if len(part) < length or kind not in (1, 2, 3, 4):  # full, first, middle, last
            return
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            yield whole
