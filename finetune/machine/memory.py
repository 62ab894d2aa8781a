"""Memory that ran out, of this machine or of a device, told from all other errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from finetune.errors import ResourceError

# What torch, its libraries and its devices say, each in words of its own; not all have a class of their own.
_TEXTS = (
    "can't allocate memory",  # a CPU
    "cannot allocate memory",  # the system: of a file mapped into memory, of a process to be started
    "out of memory",  # CUDA's runtime, its allocator, MPS
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "std::bad_alloc",
    "can't start new thread",  # Python, for lack of room for its stack
    "could not create a primitive",  # oneDNN, which says no more of what it lacks
    "unable to allocate",  # numpy
    "not enough memory",  # Windows
)
_ADVICE = (
    "Set data.batch_size or data.image_size lower, precision=bfloat16, or data.workers=0; device=cpu if "
    "only the GPU is full."
)


def out_of_memory(error: BaseException, batch_size: int | None = None) -> ResourceError | None:
    """Translate a complaint about memory, of a GPU or of the machine; None for any other error.

    Args:
        error: what was raised.
        batch_size: of the pass in which it was raised, to propose half of it.
    """
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    named = isinstance(error, RuntimeError | OSError) and any(one in str(error).lower() for one in _TEXTS)
    if not (known or named):
        return None
    if batch_size is None:
        return ResourceError(f"Out of memory ({text})\n{_ADVICE}")
    return ResourceError(
        f"Out of memory: data.batch_size {batch_size} does not fit ({text})\n"
        f"Try data.batch_size={max(2, batch_size // 2)} (twice data.accumulate keeps the images of a step), "
        "a smaller data.image_size, or precision=bfloat16."
    )


@contextmanager
def reported_memory_errors() -> Iterator[None]:
    """Say so where memory runs out, wherever that is.

    Raises:
        ResourceError: it ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if known := out_of_memory(error):
            raise known from error
        raise
