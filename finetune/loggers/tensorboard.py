"""TensorBoard: event files in the run directory."""

from collections.abc import Sequence
from typing import Any

from finetune.loggers.logger import Marks, RunFacts
from finetune.loggers.records import Record

FOLDER = "tensorboard"


class TensorBoardLogger:
    """Writes event files; each process adds one."""

    errors: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self._writer: Any = None

    def open(self, facts: RunFacts) -> Marks:
        """Read what is there, and open a new file beside it."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        folder = str(facts.directory / FOLDER)
        marks: dict[str, int] = {}
        if (facts.directory / FOLDER).is_dir():
            events = EventAccumulator(
                folder, size_guidance={"scalars": 0}, purge_orphaned_data=False
            ).Reload()
            marks = {tag: max(one.step for one in events.Scalars(tag)) for tag in events.Tags()["scalars"]}
        self._writer = SummaryWriter(folder)
        if not marks:
            lines = "\n".join(f"    {key}: {value}" for key, value in facts.config.items())
            self._writer.add_text("config", lines)
        return marks

    def write(self, records: Sequence[Record]) -> None:
        """Write scalars, and see to it that they reach the file."""
        for record in records:
            for name, value in record.values.items():
                self._writer.add_scalar(name, value, record.step)
        self._writer.flush()

    def close(self, state: str) -> None:
        """Close the file."""
        self._writer.close()
