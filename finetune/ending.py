"""How a training ends, said in the run directory however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from finetune.errors import DivergenceError, FinetuneError, Interrupted, ResourceError
from finetune.journal import Journal
from finetune.loaders import worker_failure
from finetune.run import Run


@contextmanager
def recorded_end(run: Run, journal: Journal) -> Iterator[None]:
    """Make the run directory say how the run ended, however it ends, and where in the training that was."""
    state, exit_code, error = "failed", 1, None
    failed_at: dict[str, str | int | None] = {}
    try:
        yield
        state, exit_code = "done", 0
    except KeyboardInterrupt:
        state, exit_code = "interrupted", Interrupted.exit_code
        raise Interrupted(
            f"Interrupted. The best model so far, if an epoch was done, is in {run.directory}."
        ) from None
    except DivergenceError as failure:
        state, exit_code, error = "diverged", failure.exit_code, str(failure)
        if failure.step is not None:
            failed_at = {"step": failure.step}
        raise
    except FinetuneError as failure:
        exit_code, error = failure.exit_code, str(failure)
        raise
    except RuntimeError as failure:
        error = str(failure)
        known = out_of_memory(failure) or worker_failure(failure)
        if known is None:
            raise
        exit_code = known.exit_code
        raise known from failure
    finally:
        run.write_status(state, exit_code, resumable=False, error=error, **(journal.place() | failed_at))


def out_of_memory(error: RuntimeError) -> ResourceError | None:
    """Translate torch's complaint about memory, of a GPU or of the machine; None for any other error."""
    text = str(error)
    if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text):
        return None
    return ResourceError(
        f"Out of memory: {text.splitlines()[0]}\n"
        "Try a smaller data.batch_size or data.image_size, or precision=bfloat16."
    )
