"""Images as Python programs hold them: paths, Pillow images, arrays, tensors, and lists of these."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from finetune.commands.predict.inputs import PredictionInput, read_source
from finetune.data.image_files import is_folder
from finetune.data.table import is_table
from finetune.errors import DataError
from finetune.runs.trained_model import TrainedModel

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
"""The path of an image, of a folder or of a table of images; a Pillow image; an array uint8 (H, W, 3), (H, W)
or (N, H, W, 3); a tensor uint8 (3, H, W) or (N, 3, H, W)."""


def find_images(images: ImageLike | Sequence[ImageLike], trained: TrainedModel) -> list[PredictionInput]:
    """Return all images, in the order given; those in memory are called by their position, from 1.

    Raises:
        DataError: what is no image, a folder or table without images.
    """
    found: list[PredictionInput] = []
    for one in images if isinstance(images, Sequence) and not isinstance(images, str) else [images]:
        if isinstance(one, str | os.PathLike):
            found += read_source(Path(one), trained).inputs
        else:
            for pixels in _in_memory(one):
                found.append(PredictionInput(Path(f"image {len(found) + 1}"), pixels=pixels))
    return found


def is_one(images: object) -> bool:
    """Tell whether a value is a single image, and not a list, a batch, a folder or a table."""
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        return not (is_folder(path) or is_table(path))
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim < 4
    return isinstance(images, Image.Image)


def _in_memory(images: object) -> list[Image.Image | Tensor]:
    """Return the images that a value in memory holds.

    Raises:
        DataError: it is no image, or not one of 8-bit pixels in the usual order of dimensions.
    """
    match images:
        case Image.Image():
            return [images]
        case np.ndarray() if images.dtype == np.uint8:
            arrays = images if images.ndim == 4 else images[None]
            if arrays.ndim == 3 or (arrays.ndim == 4 and arrays.shape[-1] in (3, 4)):
                return [Image.fromarray(np.ascontiguousarray(one)) for one in arrays]
        case Tensor() if images.dtype == torch.uint8:
            tensors = images if images.ndim == 4 else images[None]
            if tensors.ndim == 4 and tensors.shape[1] == 3:
                return list(tensors.cpu())
    raise DataError(
        f"{_described(images)} is not an image.\n"
        "Expected a path, a Pillow image, an array uint8 (H, W, 3) or (N, H, W, 3), a tensor uint8 (3, H, W) "
        "or (N, 3, H, W), or a list of these, with pixels from 0 to 255."
    )


def _described(value: object) -> str:
    if isinstance(value, np.ndarray | Tensor):
        kind = "An array" if isinstance(value, np.ndarray) else "A tensor"
        return f"{kind} of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"A value of type {type(value).__name__}"
