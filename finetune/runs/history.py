"""The epochs of a run, as history.csv, events, checkpoints and reports hold them."""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from finetune.choices import Monitor
from finetune.errors import CheckpointError
from finetune.runs.directory import Run
from finetune.runs.names import HISTORY


@dataclass(frozen=True)
class EpochRow:
    """One line of history.csv."""

    stage: str
    epoch: int
    """Within its stage, from 1."""
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_macro_f1: float
    val_map: float
    seconds: float
    images_per_second: float
    of_packages: Mapping[str, float] = field(default_factory=dict)
    """Scores of other packages that the config names, by what it calls them: `val_…`."""

    def value(self, monitor: Monitor) -> float:
        """Return what is monitored."""
        return float(self.of_packages[monitor] if monitor in self.of_packages else getattr(self, monitor))

    def to_dict(self) -> dict[str, Any]:
        """Return the epoch as files hold it: the scores of packages stand beside ours."""
        values = asdict(self)
        theirs: dict[str, float] = values.pop("of_packages")
        return values | theirs

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EpochRow":
        """Return the epoch that `to_dict` gave.

        Raises:
            TypeError: something is missing.
        """
        ours = {one.name for one in fields(cls)}
        return cls(
            **{name: value for name, value in values.items() if name in ours},
            of_packages={name: value for name, value in values.items() if name not in ours},
        )


def read_history(run: Run) -> list[EpochRow]:
    """Read the epochs of a run so far, in order.

    Raises:
        CheckpointError: history.csv is not what a run wrote.
    """
    try:
        return [
            EpochRow.from_dict({"stage": row.pop("stage"), "epoch": int(row.pop("epoch")), **_numbers(row)})
            for row in run.read_history()
        ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise CheckpointError(f"{run / HISTORY} is damaged or was changed ({error!r}).") from None


def _numbers(cells: Mapping[str, str]) -> dict[str, float]:
    return {name: float(cell) for name, cell in cells.items()}
