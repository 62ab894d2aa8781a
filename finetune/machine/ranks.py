"""Several processes that train together: what they tell each other, and what becomes of them if one ends.

Each is called a rank. All go through the same training, each with its rows of every batch, and meet wherever
a method of `Ranks` is called; alone, none of these does anything.
"""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from finetune.errors import ResourceError, error_of
from finetune.machine.presence import silent_end

LAST_WORDS = 5.0
"""seconds that a rank which ends is given to say why"""

_RUN = "run"
_Value = TypeVar("_Value")


@dataclass
class Line:
    """What connects the ranks, beside the collectives of torch."""

    store: Any
    """Holds a note of each rank that has ended, under `end/RANK`."""
    job: Any = None
    """Outlives the restarts of a job by torchrun."""
    relayed: bool = False
    """Whether this rank ends because another one has."""
    lost: tuple[int, ...] = ()
    """Ranks that have ended without a word."""


@dataclass(frozen=True)
class Ranks:
    """The processes of one training, and which of them this is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0
    line: Line | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone prints and writes the run directory."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the ranks."""
        if not self.alone:
            with self._meeting():
                dist.all_reduce(tensor)

    def largest(self, number: int) -> int:
        """Return the largest of the ranks' numbers."""
        if self.alone:
            return number
        value = torch.tensor(number)
        with self._meeting():
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gather(self, rows: Tensor, positions: Sequence[int], total: int) -> Tensor:
        """Put the rows (n, …) of all ranks together to (total, …), each at its position.

        Every position is that of one row of one rank, so adding up with zeros changes no number.
        """
        if self.alone:
            return rows
        whole = rows.new_zeros(total, *rows.shape[1:])
        whole[torch.tensor(positions, dtype=torch.int64, device=rows.device)] = rows
        self.add_up(whole)
        return whole

    def rows_to_first(self, rows: Tensor, total: int) -> Tensor | None:
        """Put the rows (n, …) of all ranks together on rank 0, in their order: (total, …), on the CPU.

        All have as many, but for the last ones, which have fewer or none. None on other ranks.
        """
        each = -(-total // self.size)
        own = torch.zeros(each, *rows.shape[1:], dtype=rows.dtype)
        own[: len(rows)] = rows
        parts = [torch.empty_like(own) for _ in range(self.size)] if self.is_first else None
        with self._meeting():
            dist.gather(own, parts, dst=0)
        return None if parts is None else torch.cat(parts)[:total]

    def of_first(self, value: _Value) -> _Value:
        """Return the value that rank 0 has; that of other ranks is not looked at."""
        if self.alone:
            return value
        values = [value]
        with self._meeting():
            dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def of_each(self, value: _Value) -> list[_Value]:
        """Return the values of all ranks, in their order."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        with self._meeting():
            # torch would send objects with the device of a GPU, which its own rank may not have chosen yet.
            for rank in range(self.size):
                one = [value]
                dist.broadcast_object_list(one, src=rank, device=torch.device("cpu"))
                values[rank] = one[0]
        return values

    def share_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Let all ranks hold what rank 0 holds in these tensors."""
        if not self.alone:
            with self._meeting(), torch.no_grad():
                for tensor in tensors:
                    sent = tensor.contiguous()
                    dist.broadcast(sent, src=0)
                    tensor.copy_(sent)

    def remember(self, run: str) -> None:
        """Note which run directory this job writes, for when torchrun starts it again."""
        if self.line is not None:
            with suppress(RuntimeError):
                self.line.job.set(_RUN, run)

    def remembered(self) -> str | None:
        """Return the run that this job wrote before torchrun started it again; None if not known."""
        if self.line is None or not self.restarts or not self.line.job.check([_RUN]):
            return None
        return str(self.line.job.get(_RUN).decode())

    @contextmanager
    def local_first(self) -> Iterator[None]:
        """Let one rank of each machine do what is inside first: the others find it in the cache."""
        if self.local_rank > 0:
            self.largest(0)
        yield
        if self.local_rank == 0:
            self.largest(0)

    @contextmanager
    def meeting_within(self) -> Iterator[None]:
        """Say what has become of the others where torch itself lets ranks meet, and that fails.

        Raises:
            FinetuneError: as `_meeting`.
        """
        try:
            yield
        except RuntimeError as error:
            if self.alone or not _is_of_network(error):
                raise
            self.report(error)

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Say what has become of the others where a meeting fails.

        Raises:
            FinetuneError: the one that another rank ended with.
            ResourceError: another rank has ended without a word.
        """
        try:
            yield
        except RuntimeError as error:  # torch's errors of the network are such
            self.report(error)

    def report(self, error: RuntimeError) -> NoReturn:
        """Raise what another rank ended with, after an `error` that only says that it has.

        Raises:
            FinetuneError: as `_meeting`.
        """
        assert self.line is not None
        ignore_signals()  # torchrun sends them to those that are left
        self.line.relayed = True
        silent = [rank for rank in range(self.size) if rank != self.rank]
        try:
            self.line.store.set(f"noticed/{self.rank}", "")
            waited, began = 0.0, time.monotonic()
            while silent and waited < LAST_WORDS:
                for rank in list(silent):
                    note = note_of(self.line.store, rank)
                    if note is not None and note["lost"]:
                        self.lose(note["lost"], error)
                    if note is not None and note["code"] and not note["relayed"]:
                        raise error_of(note["code"], f"rank {rank}: {note['text']}") from error
                    if note is not None or self.line.store.check([f"noticed/{rank}"]):
                        silent.remove(rank)
                time.sleep(0.05)
                waited = time.monotonic() - began
        except RuntimeError:  # the store is gone as well, which most often rank 0 holds
            silent = [0] if 0 in silent else silent
        if not silent:
            lost = f"The ranks have lost each other: {first_line(error)}"
            raise ResourceError(f"{lost}\nResume the run with --resume.") from error
        self.lose(silent, error)

    def lose(self, lost: Sequence[int], error: BaseException | None = None) -> NoReturn:
        """Raise that these ranks have ended without a word; the others learn it from the note of this one.

        Raises:
            ResourceError: always.
        """
        assert self.line is not None
        self.line.relayed, self.line.lost = True, tuple(lost)
        raise silent_end(lost) from error


ALONE = Ranks()


def note_of(store: Any, rank: int) -> dict[str, Any] | None:
    """Return the note of a rank that has ended: its exit code, the text, and whether others began it."""
    key = f"end/{rank}"
    return json.loads(store.get(key)) if store.check([key]) else None


def _is_of_network(error: RuntimeError) -> bool:
    """Tell whether ranks have lost each other; of gloo's errors only the text says so."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return next(iter(str(error).splitlines()), "")


def ignore_signals() -> None:
    """Let what ends this process come to its end."""
    with suppress(ValueError):  # only the main thread may
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
