"""The processor's cores: how many may be used, and a function over many items in threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_THREADS = 8
_IN_FLIGHT = 64  # items handed to the threads at a time, so that Ctrl-C does not wait for a long queue


def usable_cores() -> int:
    """Count the cores that this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """Return each item with what the function makes of it, in order."""
    executor = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        for start in range(0, len(items), _IN_FLIGHT):
            some = items[start : start + _IN_FLIGHT]
            yield from zip(some, executor.map(function, some), strict=True)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
