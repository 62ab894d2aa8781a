"""The checkpoints of a run: a few states of a training, newest last, each in one checksummed file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.errors import CheckpointError
from finetune.machine.files import reported_disk_errors, write_bytes
from finetune.runs.checksummed import dump_checksummed, load_checksummed

_ENDING = ".safetensors"


@dataclass(frozen=True)
class Stored:
    """A checkpoint as it lies in its file."""

    name: str
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]
    """Everything else, as JSON can hold it."""


class CheckpointFolder:
    """The folder of a run's checkpoints; their names sort in the order of the training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return the names of all checkpoints, oldest first."""
        return sorted(path.name.removesuffix(_ENDING) for path in self.folder.glob(f"[!.]*{_ENDING}"))

    def save(self, checkpoint: Stored, *, keep: int) -> None:
        """Write a checkpoint, then remove all but the last `keep`.

        Raises:
            ResourceError: the disk is full; earlier checkpoints are intact.
        """
        with reported_disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        content = dump_checksummed(checkpoint.tensors, json.dumps(checkpoint.state))
        write_bytes(self._path(checkpoint.name), content)
        self.prune(keep)

    def prune(self, keep: int) -> None:
        """Remove all but the last `keep` checkpoints, and what an interrupted write has left."""
        if not self.folder.is_dir():
            return
        with reported_disk_errors(self.folder):
            for name in self.names()[:-keep]:
                self._path(name).unlink(missing_ok=True)
            for path in self.folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def load_newest(self, warn: Callable[[str], None]) -> Stored | None:
        """Return the newest checkpoint that is whole; None if there has been none.

        Damaged ones are set aside and reported to `warn`.

        Raises:
            CheckpointError: there are checkpoints, and none is whole.
        """
        names = self.names()
        for name in reversed(names):
            try:
                tensors, text = load_checksummed(self._path(name))
            except CheckpointError as error:
                self._path(name).rename(self._path(name).with_suffix(".damaged"))
                warn(f"{error} It was set aside; the one before it is used.")
                continue
            except OSError as error:
                raise CheckpointError(f"Cannot read {self._path(name)}: {error.strerror}.") from None
            return Stored(name, tensors, json.loads(text))
        if names:
            raise CheckpointError(
                f"All {len(names)} checkpoints in {self.folder} are damaged; training cannot be resumed.\n"
                "Start again without --resume; the best model so far is untouched."
            )
        return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_ENDING}"
