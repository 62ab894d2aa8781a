"""Errors in the terms of Python: the commands speak of options, a caller of functions has arguments."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.errors import FinetuneError, Interrupted, Stopped
from finetune.machine.memory import reported_memory_errors

_RESUME = re.compile(r"finetune train --resume (\S+)")
_OPTIONS = {
    "--run-dir DIR": "run_dir=…",
    "--run-dir": "run_dir=…",
    "--run RUN": "run=…",
    "--run": "run=…",
    "--resume": "resume=True",
    "--overwrite": "overwrite=True",
    "--force": "force=True",
    "--metadata": "metadata=…",
    "--stage": "stage=…",
    "--device": "device=…",
}
_OPTION = re.compile("|".join(map(re.escape, _OPTIONS)))


@contextmanager
def python_terms() -> Iterator[None]:
    """Raise what the commands raise, with messages that name arguments in place of options.

    Raises:
        KeyboardInterrupt: Ctrl-C, or the interrupt of a notebook's kernel. `except FinetuneError` must not
            mistake it for the failure of one training among several; the state is saved all the same.
        FinetuneError: everything else.
    """
    try:
        with reported_memory_errors():
            yield
    except (Stopped, Interrupted) as error:
        message = in_python(str(error))
        if isinstance(error, Interrupted) or message.startswith("Stopped by SIGINT"):
            raise KeyboardInterrupt(message) from None
        error.args = (message,)
        raise
    except FinetuneError as error:
        if len(error.args) == 1:
            error.args = (in_python(str(error.args[0])),)
        raise


def in_python(message: str) -> str:
    """Write the options that a message names as arguments."""
    message = _RESUME.sub(lambda match: f'finetune.train("{match[1]}", resume=True)', message)
    return _OPTION.sub(lambda match: _OPTIONS[match[0]], message)
