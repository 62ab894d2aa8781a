"""A study as Optuna's log of changes, which outlives processes that are killed while they write into it."""

import os
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

_GRACE = 30
"""seconds after which the lock of a process that was killed with it is taken away"""

_BLOCK = 4096


def open_journal(path: Path) -> JournalStorage:
    """Open a log, or begin it."""
    # The lock is a link to the file, which Optuna follows from the folder of the link.
    file = os.path.abspath(path)
    return JournalStorage(JournalFileBackend(file, lock_obj=_Lock(file, _GRACE)))


class _Lock(JournalFileSymlinkLock):
    """Optuna's lock on a log, whose end is made whole as soon as it is held.

    A process that was killed while it wrote, or a full disk, leaves part of a line. Optuna reads past it, but
    the next line would be appended to it, and the log be unreadable from there on.
    """

    def __init__(self, file: str, grace_period: int) -> None:
        super().__init__(file, grace_period)
        self._file = file

    def acquire(self) -> bool:
        held = super().acquire()
        try:
            _cut_torn_line(self._file)
        except BaseException:
            self.release()
            raise
        return held


def _cut_torn_line(file: str) -> None:
    """Remove what stands after the last line that was ended."""
    with open(file, "r+b") as log:
        size = end = log.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _BLOCK)
            log.seek(begin)
            newline = log.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        if end < size:
            log.truncate(end)
