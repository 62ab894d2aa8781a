"""Answer the images of a request with a model: decode in some threads, compute in another."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from finetune.commands.predict.inputs import MetadataOptions, PredictionInput, add_metadata
from finetune.commands.predict.predict import answer_images
from finetune.commands.predict.prediction import Prediction, Verdict
from finetune.commands.serve.batching import BatchQueue
from finetune.commands.serve.body import Upload
from finetune.commands.serve.limits import RefusedError, ServeLimits
from finetune.data.images import ImageError, decode_image
from finetune.errors import ConfigError, DataError
from finetune.machine.cores import usable_cores
from finetune.runs.trained_model import TrainedModel
from finetune.text import quoted

_MOST_READERS = 4  # threads that decode; each may hold an image of the most pixels that are accepted

_Item = tuple[Tensor, PredictionInput, int]
"""the pixels for the model, the metadata beside them, and the number of classes that are asked for"""


class Answering:
    """A model that answers many clients at once."""

    def __init__(self, trained: TrainedModel, limits: ServeLimits) -> None:
        """Take a model that is loaded; `run` must be running for it to answer."""
        own = trained.limits.max_pixels
        pixels = own if limits.max_pixels is None else min(own, limits.max_pixels)
        self._trained, self._limits = trained, replace(trained.limits, max_pixels=pixels)
        self._timeout = limits.timeout
        self._readers = ThreadPoolExecutor(min(_MOST_READERS, usable_cores()), thread_name_prefix="reader")
        self.queue = BatchQueue[_Item, Verdict](self._answer, size=trained.batch_size)

    @property
    def max_pixels(self) -> int:
        """The most pixels of an image that is read."""
        return self._limits.max_pixels

    async def run(self) -> None:
        """Answer what arrives, until it is cancelled."""
        try:
            await self.queue.run()
        finally:
            self._readers.shutdown(wait=False, cancel_futures=True)

    async def predict(
        self, uploads: Sequence[Upload], metadata: Mapping[str, str], *, top_k: int
    ) -> list[Prediction]:
        """Return the answer for each image, or why it has none.

        Args:
            uploads: the images.
            metadata: of all of them; what an image says itself goes before.
            top_k: how many classes to give.

        Raises:
            RefusedError: metadata that the model does not take, or no answer in time.
        """
        inputs = self._with_metadata(uploads, metadata)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.gather(
                    *(self._predict(one, given, top_k) for one, given in zip(uploads, inputs, strict=True))
                )
        except TimeoutError:
            raise RefusedError(503, f"no answer within {self._timeout:g} s: too much at once") from None

    def _with_metadata(self, uploads: Sequence[Upload], of_all: Mapping[str, str]) -> list[PredictionInput]:
        known = () if self._trained.metadata is None else self._trained.metadata.names
        given = (of_all, *(one.metadata for one in uploads))
        unknown = sorted({name for cells in given for name in cells} - {*known})
        if unknown:
            takes = f"it takes {quoted(known)}" if known else "it takes images alone"
            raise RefusedError(400, f"metadata {quoted(unknown)} is nothing that the model knows; {takes}")
        inputs = [
            PredictionInput(Path(f"image {number}"), {**of_all, **one.metadata})
            for number, one in enumerate(uploads, start=1)
        ]
        try:
            return add_metadata(inputs, MetadataOptions(), self._trained)[0]
        except (ConfigError, DataError) as error:
            raise RefusedError(400, str(error)) from None

    async def _predict(self, upload: Upload, given: PredictionInput, top_k: int) -> Prediction:
        loop, task = asyncio.get_running_loop(), self._trained.task
        try:
            pixels = await loop.run_in_executor(self._readers, self._read, upload)
        except ImageError as error:
            # A client knows no `data.max_pixels`.
            reason = error.reason.replace("data.max_pixels", "the limit")
            return Prediction(upload.name, (), None, None, reason, top_k, task)
        verdict = await self.queue.ask((pixels, given, top_k))
        classes = tuple(one for rank, one in enumerate(verdict.classes) if rank < top_k or one.given)
        return Prediction(upload.name, classes, verdict.certainty, verdict.unlike, None, top_k, task)

    def _read(self, upload: Upload) -> Tensor:
        transform = self._trained.transform
        image = decode_image(upload.content, self._limits, name=upload.name, shrink_to=transform.shrink_to)
        return transform(image)

    def _answer(self, batch: Sequence[_Item]) -> list[Verdict]:
        most = max(top_k for *_, top_k in batch)
        return answer_images(self._trained, [(pixels, given) for pixels, given, _ in batch], most)
