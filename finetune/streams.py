"""Streams to print to, whose reader may leave and whose disk may fill."""

import io
import os
from typing import IO, Any


class Heedless:
    """A stream whose reader may leave, or whose disk may fill: what is then printed goes nowhere.

    A training is worth more than its log. rich ends the process on a broken pipe, so it must not see one.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, unless the stream has been lost."""
        if self.lost is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, unless the stream has been lost."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        discard(self._stream)


def discard(stream: IO[str]) -> None:
    """Let a stream that failed write to nothing: Python flushes it once more at its exit."""
    try:
        number = stream.fileno()
    except (OSError, io.UnsupportedOperation):
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)
