"""What a logger is, and what it is told of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from finetune.loggers.records import Record

Marks = Mapping[str, int]
"""The last step that a store has of each name."""


@dataclass(frozen=True)
class RunFacts:
    """What a logger is told of the run."""

    directory: Path
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """every value, by its dotted key"""
    id: str = ""
    """the same for all processes that train this run, and no other"""


class Logger(Protocol):
    """One place where the events of a training go."""

    errors: tuple[type[Exception], ...]
    """what it raises beside the usual, known once it is open"""

    def open(self, facts: RunFacts) -> Marks:
        """Open the store, which may hold what earlier processes have written, and tell what it has."""
        ...

    def write(self, records: Sequence[Record]) -> None:
        """Write records, in the order of their steps, so that a crash loses none of them."""
        ...

    def close(self, state: str) -> None:
        """Close the store, and say in it how the training has ended, in the words of status.json."""
        ...
