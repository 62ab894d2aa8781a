"""A queue of images that puts into one batch what waits at the same time."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchQueue(Generic[Item, Result]):
    """Answers items in batches, one batch at a time, in a thread of its own.

    While a batch is computed the next one gathers: a lone item never waits for company, and many at once cost
    little more than one.
    """

    def __init__(self, answer: Callable[[Sequence[Item]], Sequence[Result]], *, size: int) -> None:
        """Make a queue.

        Args:
            answer: computes the results of a batch, in its order.
            size: most items of a batch.
        """
        self._answer, self._size = answer, size
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    @property
    def waiting(self) -> int:
        """The number of items that no batch has taken yet."""
        return len(self._waiting)

    async def ask(self, item: Item) -> Result:
        """Return the result of an item, once its batch is computed; an error of the batch is raised."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Answer what arrives, until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                batch = self._next_batch()
                if not batch:
                    self._arrived.clear()
                    continue
                work = loop.run_in_executor(self._thread, self._answer, [item for item, _ in batch])
                await asyncio.wait([work])  # an error is of these items, and no reason to end
                _hand_out(work, [future for _, future in batch])
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """Take the items that have waited longest; those whose client has left are dropped.

        Their number is a power of two: libraries of kernels keep memory for every size they have seen.
        """
        present = [one for one in self._waiting if not one[1].done()]
        number = min(self._size, len(present))
        taken = present[: 1 << number.bit_length() >> 1]
        self._waiting = deque(present[len(taken) :])
        return taken


def _hand_out(work: asyncio.Future[Sequence[Result]], futures: Sequence[asyncio.Future[Result]]) -> None:
    error, present = work.exception(), [not future.done() for future in futures]  # some clients have left
    if error is not None:
        for future in compress(futures, present):
            future.set_exception(error)
        return
    for future, result in compress(zip(futures, work.result(), strict=True), present):
        future.set_result(result)
