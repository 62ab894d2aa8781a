"""Compare an exported file with `finetune predict` on pictures of the run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finetune.commands.export.pictures import Picture
from finetune.commands.export.program import inputs_of, predicted
from finetune.runs.trained_model import TrainedModel
from finetune.text import counted

TOGETHER = 3  # pictures of one batch, beside batches of one

Answer = Callable[[dict[str, NDArray[Any]]], NDArray[Any]]
"""From what goes into a file to the probabilities (N, C) that come out."""


@dataclass(frozen=True)
class Parity:
    """How far a file's answers are from those of `predict`."""

    difference: float
    """largest of any probability"""
    other_classes: int
    """pictures of which it names other classes"""
    pictures: int

    def __str__(self) -> str:
        same = "all classes equal"
        if self.other_classes:
            same = f"other classes for {counted(self.other_classes, 'picture')}"
        return (
            f"{counted(self.pictures, 'picture')}, one by one and {TOGETHER} at once, against predict: "
            f"probabilities differ by at most {self.difference:.2g}, {same}"
        )


def compare(trained: TrainedModel, pictures: Sequence[Picture], answer: Answer) -> Parity:
    """Compare the answers of a file with those of `predict`, one by one and several at once."""
    together = of_one_size(pictures[:TOGETHER])
    batches = [[picture] for picture in pictures] + [together]
    wanted = iter(predicted(trained, [*pictures, *together]))
    difference, others = 0.0, 0
    for batch in batches:
        for row, prediction in zip(answer(inputs_of(trained, batch)), wanted, strict=False):
            probabilities = {one.name: one.probability for one in prediction.classes}
            right = np.array([probabilities[name] for name in trained.class_names])
            difference = max(difference, float(np.abs(row - right).max()))
            others += _classes(trained, row) != set(prediction.labels)
    return Parity(difference, others, len(pictures))


def of_one_size(pictures: Sequence[Picture]) -> list[Picture]:
    """Return pictures in the size of the first, so that one batch can hold them."""
    height, width = pictures[0].pixels.shape[:2]
    return [
        picture._replace(pixels=np.asarray(Image.fromarray(picture.pixels).resize((width, height))))
        for picture in pictures
    ]


def _classes(trained: TrainedModel, probabilities: NDArray[Any]) -> set[str]:
    """Return the classes that a client of a file names."""
    thresholds = trained.calibrated_thresholds
    if thresholds is None:
        return {trained.class_names[int(probabilities.argmax())]}
    pairs = zip(trained.class_names, probabilities, thresholds, strict=True)
    return {name for name, probability, threshold in pairs if probability >= threshold}
