"""The errors a user can cause, each with the exit code that scripts rely on.

Every message says what was wrong with which value, what was expected, and how to fix it, in one or
two lines. Anything that is not a `FinetuneError` is a bug of ours and shows its traceback.
"""

from typing import ClassVar


class FinetuneError(Exception):
    """A mistake that the user can fix; the command line prints it and exits with `exit_code`."""

    exit_code: ClassVar[int] = 1


class ConfigError(FinetuneError):
    """A config file, an override or an argument that does not say something possible."""

    exit_code = 2


class InvalidConfigError(ConfigError):
    """A config with mistakes: one in each line of the message."""


class DataError(FinetuneError):
    """Images, folders or classes that cannot be trained on or predicted from."""

    exit_code = 3


class DivergenceError(FinetuneError):
    """A loss, gradient or weight that cannot be: negative where that is impossible, or not finite."""

    exit_code = 4

    def __init__(self, message: str, *, step: int | None = None) -> None:
        """Say what is wrong, and at which step of the stage, counted from 1."""
        super().__init__(message)
        self.step = step


class CheckpointError(FinetuneError):
    """Saved state that is torn, altered, or does not fit what it is loaded into."""

    exit_code = 5


class ResourceError(FinetuneError):
    """Out of memory, out of disk, or a data worker that was killed."""

    exit_code = 6


class NotWritableError(ResourceError):
    """A file or folder that may not be written; the exit code is that of a run directory in this state."""

    exit_code = 8


class MachineError(FinetuneError):
    """Something this machine lacks: the requested GPU, the network, the pretrained weights."""

    exit_code = 7


class WeightsError(MachineError):
    """Pretrained weights that are missing, damaged, or made for another model."""


class RunError(FinetuneError):
    """A run directory that is busy, not writable, not a run, or another run's."""

    exit_code = 8


class Stopped(FinetuneError):
    """A signal stopped the training, and it can be resumed."""

    exit_code = 75


class Pruned(Stopped):
    """A sweep ended a training that was behind others; like any that was stopped, it can be resumed."""


class Interrupted(FinetuneError):
    """The user or the system stopped the command before it was done, and nothing new was saved."""

    exit_code = 130


def error_of(exit_code: int, message: str, otherwise: type[FinetuneError] = FinetuneError) -> FinetuneError:
    """Return the error that ended another process, by its exit code; `otherwise` for one that none has."""
    kinds = (kind for kind in FinetuneError.__subclasses__() if kind.exit_code == exit_code)
    return next(kinds, otherwise)(message)
