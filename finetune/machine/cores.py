"""The processor's cores: how many may be used, and a function over many items in threads."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_THREADS = 8
_TOGETHER = 16  # items that a thread is handed at a time: a small file takes less time than handing it over
_AHEAD = 4  # portions that wait for each thread, so that a slow item holds up no other

# Threads that ask a local disk for the times of files take twice the time of one, because at each answer they
# wait for each other. So they begin once items have taken so many seconds more than quick ones do.
_QUICK, _PATIENCE = 50e-6, 0.03


def usable_cores() -> int:
    """Count the cores that this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], *, quick: float = _QUICK
) -> Iterator[tuple[Item, Result]]:
    """Return each item with what the function makes of it, in order.

    Quick items, which take no more than so many seconds, are done by the caller; once some are not, threads
    do the rest.
    """
    patience, clock = _PATIENCE, time.perf_counter
    for number, item in enumerate(items, start=1):
        began = clock()
        result = function(item)
        patience = min(_PATIENCE, patience + quick - (clock() - began))
        yield item, result
        if patience < 0:
            yield from _in_portions(function, items[number:])
            return


def _in_portions(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    threads, stopped = min(_MOST_THREADS, os.cpu_count() or 1), Event()
    executor = ThreadPoolExecutor(threads)
    waiting: deque[Future[list[tuple[Item, Result]]]] = deque()

    def portion(start: int) -> list[tuple[Item, Result]]:
        # Ctrl-C waits for the item at hand, and not for the rest of the portion.
        return [(item, function(item)) for item in items[start : start + _TOGETHER] if not stopped.is_set()]

    try:
        for start in range(0, len(items), _TOGETHER):
            waiting.append(executor.submit(portion, start))
            if len(waiting) > threads * _AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        stopped.set()
        executor.shutdown(wait=True, cancel_futures=True)
