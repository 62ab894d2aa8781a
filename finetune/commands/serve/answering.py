"""Answer the images of a request with a model: decode in some threads, compute in another."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from finetune.commands.predict.inputs import MetadataOptions, PredictionInput, add_metadata
from finetune.commands.predict.predict import answer_images
from finetune.commands.predict.prediction import Prediction, Verdict
from finetune.commands.serve.batching import BatchQueue
from finetune.commands.serve.body import Upload
from finetune.commands.serve.explaining import Explanation, box_of_crop, explain
from finetune.commands.serve.limits import RefusedError, ServeLimits
from finetune.commands.serve.settings import Settings
from finetune.data.images import ImageError, decode_image
from finetune.errors import ConfigError, DataError
from finetune.machine.cores import usable_cores
from finetune.runs.trained_model import TrainedModel
from finetune.text import quoted

_MOST_READERS = 4  # threads that decode; each may hold an image of the most pixels that are accepted


class _Read(NamedTuple):
    """An image that was read."""

    pixels: Tensor
    """as the model takes them"""
    size: tuple[int, int]
    """width and height, upright"""


class _Item(NamedTuple):
    """What the model is asked about an image."""

    pixels: Tensor
    given: PredictionInput
    """the metadata beside it"""
    settings: Settings


_Result = tuple[Verdict, Explanation | None]


class Answered(NamedTuple):
    """The answer for an image."""

    prediction: Prediction
    explanation: dict[str, Any] | None = None
    """where it was asked for, and the network has a map to look at"""


class Answering:
    """A model that answers many clients at once."""

    def __init__(self, trained: TrainedModel, limits: ServeLimits) -> None:
        """Take a model that is loaded; `run` must be running for it to answer."""
        own = trained.limits.max_pixels
        pixels = own if limits.max_pixels is None else min(own, limits.max_pixels)
        self._trained, self._limits = trained, replace(trained.limits, max_pixels=pixels)
        self._timeout = limits.timeout
        self._readers = ThreadPoolExecutor(min(_MOST_READERS, usable_cores()), thread_name_prefix="reader")
        self.queue = BatchQueue[_Item, tuple[Verdict, Explanation | None]](
            self._answer, size=trained.batch_size
        )

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
        self, uploads: Sequence[Upload], metadata: Mapping[str, str], settings: Settings
    ) -> list[Answered]:
        """Return the answer for each image, or why it has none.

        Args:
            uploads: the images.
            metadata: of all of them; what an image says itself goes before.
            settings: how the answers are to be.

        Raises:
            RefusedError: metadata that the model does not take, or no answer in time.
        """
        inputs = self._with_metadata(uploads, metadata)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.gather(
                    *(self._predict(one, given, settings) for one, given in zip(uploads, inputs, strict=True))
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

    async def _predict(self, upload: Upload, given: PredictionInput, settings: Settings) -> Answered:
        loop, task, top_k = asyncio.get_running_loop(), self._trained.task, settings.top_k
        try:
            read = await loop.run_in_executor(self._readers, self._read, upload)
        except ImageError as error:
            # A client knows no `data.max_pixels`.
            reason = error.reason.replace("data.max_pixels", "the limit")
            return Answered(Prediction(upload.name, (), None, None, reason, top_k, task))
        verdict, explanation = await self.queue.ask(_Item(read.pixels, given, settings))
        classes = tuple(one for rank, one in enumerate(verdict.classes) if rank < top_k or one.given)
        answer = Prediction(upload.name, classes, verdict.certainty, verdict.unlike, None, top_k, task)
        box = box_of_crop(self._trained.model.preprocessing, read.size)
        return Answered(answer, None if explanation is None else explanation.to_dict(box))

    def _read(self, upload: Upload) -> _Read:
        transform = self._trained.transform
        image = decode_image(upload.content, self._limits, name=upload.name, shrink_to=transform.shrink_to)
        return _Read(transform(image), image.size)

    def _answer(self, batch: Sequence[_Item]) -> list[_Result]:
        most = max(item.settings.top_k for item in batch)
        verdicts = answer_images(self._trained, [(item.pixels, item.given) for item in batch], most)
        asked = [place for place, item in enumerate(batch) if item.settings.explain]
        found = explain(
            self._trained,
            [batch[place].pixels for place in asked],
            [batch[place].given.metadata for place in asked],
            [verdicts[place].classes[0].name for place in asked],
        )
        explanations = dict(zip(asked, found, strict=True))
        return [(verdict, explanations.get(place)) for place, verdict in enumerate(verdicts)]
