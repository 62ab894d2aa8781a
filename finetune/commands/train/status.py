"""How a training ends, said in the run directory however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from finetune.data.loading.workers import worker_failure
from finetune.errors import DivergenceError, FinetuneError, Interrupted, ResourceError, Stopped
from finetune.machine.memory import out_of_memory
from finetune.machine.signals import StopSignals
from finetune.runs import Run
from finetune.runs.checkpointer import how_to_resume
from finetune.runs.recorder import RunRecorder


@contextmanager
def recorded_status(run: Run, recorder: RunRecorder, stop: StopSignals, *, batch_size: int) -> Iterator[None]:
    """Make the run directory say how the run ended, however it ends, and where in the training that was.

    `batch_size` is what to name where memory has run out.
    """
    state, exit_code, error = "failed", 1, None
    failed_at: dict[str, str | int | None] = {}
    try:
        yield
        state, exit_code = "done", 0
    except KeyboardInterrupt:
        failure = interruption(run, stop)
        state, exit_code = _state_of(failure), failure.exit_code
        raise failure from None
    except FinetuneError as failure:
        state, exit_code, error = _state_of(failure), failure.exit_code, str(failure)
        if isinstance(failure, DivergenceError) and failure.step is not None:
            failed_at = {"step": failure.step}
        raise
    except (RuntimeError, MemoryError) as failure:
        error = str(failure)
        known = known_failure(failure, batch_size)
        if known is None:
            raise
        exit_code = known.exit_code
        raise known from failure
    finally:
        recorder.end(state)
        with suppress(ResourceError):  # the disk may be what failed; the error on its way says more
            run.write_status(
                state,
                exit_code,
                resumable=state not in ("done", "diverged"),
                last_checkpoint=next(reversed(run.checkpoints.names()), None),
                error=error,
                early_stops=[asdict(stop) for stop in recorder.early_stops],
                **(recorder.place() | failed_at),
            )


def known_failure(failure: RuntimeError | MemoryError, batch_size: int) -> FinetuneError | None:
    """Return what the user can do about memory that ran out or a loader's process that died; else None."""
    known = out_of_memory(failure, batch_size)
    return worker_failure(failure) if known is None and isinstance(failure, RuntimeError) else known


def interruption(run: Run, stop: StopSignals) -> Stopped | Interrupted:
    """Return the end that signals have put to a training outside of a step, or in the midst of one."""
    how = how_to_resume(run)
    if stop.received is None or stop.insisted:
        return Interrupted(f"Interrupted at once; nothing new was saved.\n{how}")
    saved = run.checkpoints.names()
    since = f"the last checkpoint is {saved[-1]}" if saved else "nothing was trained yet"
    return Stopped(f"Stopped by {stop.received}; {since}.\n{how}")


def _state_of(failure: FinetuneError) -> str:
    match failure:
        case Stopped():
            return "stopped"
        case Interrupted():
            return "interrupted"
        case DivergenceError():
            return "diverged"
        case _:
            return "failed"
