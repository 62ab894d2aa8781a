"""The run directory of a process that trains with others, of which the first writes it: nothing."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.runs.checkpoints import CheckpointFolder, Stored
from finetune.runs.directory import Run


class UnwrittenRun(Run):
    """Takes what a training writes down on its way, and keeps none of it."""

    def __init__(self) -> None:
        super().__init__(Path())

    @property
    def checkpoints(self) -> CheckpointFolder:
        """A folder that holds nothing."""
        return _NoCheckpoints(self.directory)

    def write_config(self, text: str) -> None:
        """Write nothing."""

    def write_history(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write nothing."""

    def write_lr_find(self, stage: str, found: Mapping[str, object], picture: bytes) -> None:
        """Write nothing."""

    def append_events(self, events: Iterable[Mapping[str, object]]) -> None:
        """Write nothing."""

    def events_size(self) -> int:
        """Return the size of no events."""
        return 0

    def cut_events(self, size: int) -> None:
        """Leave everything as it is."""

    def read_events(self) -> list[dict[str, Any]]:
        """Return no events."""
        return []

    def write_status(self, state: str, exit_code: int, **details: object) -> None:
        """Write nothing."""

    def save_model(self, state: Mapping[str, Tensor], description: Mapping[str, object]) -> None:
        """Save nothing."""


class _NoCheckpoints(CheckpointFolder):
    def save(self, checkpoint: Stored, *, keep: int) -> None:
        """Save nothing."""

    def names(self) -> list[str]:
        """Return no names."""
        return []
