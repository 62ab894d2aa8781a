"""The pictures that an exported file is tried on: those of its run, in every shape and several sizes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finetune.commands.evaluate.evaluate import own_index
from finetune.data.images import ImageError
from finetune.data.index import ImageIndex, Sample, load_sample
from finetune.errors import DataError
from finetune.runs.trained_model import TrainedModel

MOST = 8
"""images of the run that are tried, each in one shape"""

_SHAPES = {"as it is": None, "portrait": 2 / 3, "landscape": 3 / 2, "square": 1.0}
_SIZES = {"as it is": None, "small": 0.5, "large": 3.0}


class Picture(NamedTuple):
    """A picture to try a file on."""

    shape: str
    """such as `portrait`, or `large`"""
    pixels: NDArray[np.uint8]
    """(H, W, 3)"""
    metadata: tuple[str, ...] = ()
    """the cells that the model takes beside it"""


def run_samples(trained: TrainedModel) -> tuple[ImageIndex, tuple[Sample, ...]]:
    """Return the validation images of a run; none where they are not there any more."""
    try:
        index = own_index(trained)
    except DataError:
        return ImageIndex(None, trained.class_names, ()), ()
    return index, index.of_split("val") or index.of_split("train")


def pictures_to_try(trained: TrainedModel) -> list[Picture]:
    """Return some of the run's images, cut to all shapes and scaled to several sizes; or drawn ones."""
    index, samples = run_samples(trained)
    chosen = [samples[i * len(samples) // MOST] for i in range(min(MOST, len(samples)))]
    found = [
        Picture(name, np.asarray(image), sample.metadata)
        for number, (sample, original) in enumerate(_readable(trained, index, chosen))
        for name, image in _variants(original, number, trained.model.preprocessing.resize_size)
    ]
    return found or [
        Picture(name, np.asarray(image), ("",) * _columns(trained))
        for name, image in _variants(_drawn(), 0, trained.model.preprocessing.resize_size)
    ]


def _readable(
    trained: TrainedModel, index: ImageIndex, samples: Sequence[Sample]
) -> Iterator[tuple[Sample, Image.Image]]:
    for sample in samples:
        try:
            yield sample, load_sample(index, sample, trained.limits, shrink_to=trained.transform.shrink_to)
        except ImageError:
            continue


def _variants(image: Image.Image, number: int, side: int) -> Iterator[tuple[str, Image.Image]]:
    """Return an image as it is, in one of the shapes, and in one of the sizes, in turn."""
    yield "as it is", image
    shape, ratio = list(_SHAPES.items())[1 + number % (len(_SHAPES) - 1)]
    assert ratio is not None
    yield shape, _cut(image, ratio)
    size, scale = list(_SIZES.items())[1 + number % (len(_SIZES) - 1)]
    assert scale is not None
    short = max(round(scale * side), 1)
    factor = short / min(image.size)
    sides = tuple(max(round(factor * one), short) for one in image.size)
    yield size, image.resize((sides[0], sides[1]))


def _cut(image: Image.Image, ratio: float) -> Image.Image:
    """Cut the centre of an image to a ratio of width and height."""
    width, height = image.size
    new_width, new_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    new_width, new_height = max(new_width, 1), max(new_height, 1)
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return image.crop((left, top, left + new_width, top + new_height))


def _drawn() -> Image.Image:
    """Return a picture of soft colours, where the run's own are not there any more."""
    y, x = np.mgrid[:375, :500] / 100
    waves = [np.sin(3 * x + phase) * np.cos(2 * y - phase) for phase in (0.0, 1.0, 2.0)]
    return Image.fromarray((127 + 120 * np.stack(waves, 2)).astype(np.uint8))


def _columns(trained: TrainedModel) -> int:
    return 0 if trained.metadata is None else len(trained.metadata.columns)


def examples_to_calibrate(trained: TrainedModel, most: int) -> list[Picture]:
    """Return training images, evenly spaced; as an exported file sees them.

    Raises:
        DataError: the images of the run are not there any more.
    """
    index = own_index(trained)
    return list(pictures_of(trained, index, index.thinned("train", most).of_split("train")))


def pictures_of(trained: TrainedModel, index: ImageIndex, samples: Sequence[Sample]) -> Iterator[Picture]:
    """Read images as a client of the file is to read them; those that cannot be read are passed over."""
    for sample, image in _readable(trained, index, samples):
        yield Picture("as it is", np.asarray(image), sample.metadata)
