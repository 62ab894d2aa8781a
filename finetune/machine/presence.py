"""Which of a training's processes on this machine have ended without a word; without torch and its network.

Each holds a lock on a file of its own until the ranks have met. The lock vanishes with its process, whatever
ends it; an orderly end removes the file as well.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from finetune.errors import ResourceError
from finetune.machine.launched import Launched

try:
    import fcntl
except ImportError:  # Windows, where ranks of one machine are seen by their signs of life alone
    fcntl = None  # type: ignore[assignment]

_FRESH = 60.0
"""seconds between the starts of two ranks of one job, at the most: older files are of an earlier one"""

_ABANDONED = 86400.0  # seconds after which the file of a rank that was killed is removed
_SETTLED = 2.0  # seconds


class Presence:
    """What a rank shows the others on its machine of itself, and sees of them."""

    def __init__(self, one: Launched, folder: Path | None = None) -> None:
        """Take the file of this rank; where that cannot be, the others do not see it.

        Args:
            one: which of the processes this is.
            folder: where the files are; by default in the system's folder for temporary ones.
        """
        self.one, self._began = one, time.time()
        self._free_since: dict[int, float] = {}
        user = getattr(os, "getuid", lambda: "")()
        self._folder = folder or Path(tempfile.gettempdir()) / f"finetune-ranks-{user}"
        names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID")
        job = "|".join([*(os.environ.get(name, "") for name in names), str(os.getppid()), str(one.restarts)])
        self._job = hashlib.sha256(job.encode()).hexdigest()[:16]
        self._held: int | None = None
        try:
            self._hold()
        except OSError:
            self.leave()

    def _hold(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if path.stat().st_mtime < self._began - _ABANDONED:
                path.unlink(missing_ok=True)
        path = self._file_of(self.one.rank)
        path.unlink(missing_ok=True)  # of a process that was killed
        self._held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if fcntl is not None:
            fcntl.flock(self._held, fcntl.LOCK_EX)  # another one may be looking

    def _file_of(self, rank: int) -> Path:
        return self._folder / f"{self._job}-{rank}"

    def gone(self, settled: float = _SETTLED) -> list[int]:
        """Return the ranks that have ended, as far as this machine knows.

        Args:
            settled: seconds that they have been gone at least; one that starts may be taking its file over.
        """
        now, found = time.monotonic(), []
        for rank in range(self.one.size):
            if rank == self.one.rank or not self._is_free(rank):
                self._free_since.pop(rank, None)
            elif now - self._free_since.setdefault(rank, now) >= settled:
                found.append(rank)
        return found

    def _is_free(self, rank: int) -> bool:
        """Tell whether a rank has left its file, and nobody holds it any more."""
        if fcntl is None:
            return False
        try:
            file = os.open(self._file_of(rank), os.O_RDWR)
        except OSError:
            return False
        try:
            if os.fstat(file).st_mtime < self._began - _FRESH:
                return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def leave(self) -> None:
        """Be seen no more: the ranks have met, or the others have been told of the end."""
        if self._held is not None:
            with suppress(OSError):
                os.unlink(self._file_of(self.one.rank))
            os.close(self._held)
            self._held = None


def silent_end(ranks: Sequence[int]) -> ResourceError:
    """Return what to raise where these ranks have ended and left no note."""
    who = f"rank {ranks[0]} has" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} have"
    return ResourceError(
        f"{who} ended without a word: killed, most likely for lack of memory, or the machine was lost.\n"
        "Set data.batch_size lower if it was memory; resume the run with --resume."
    )
