"""Say where an image holds what speaks for a class: a heat map, and the part that it covers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.commands.report.pictures import heat_maps_of
from finetune.data.metadata import Row
from finetune.model.preprocessing import Preprocessing
from finetune.runs.trained_model import TrainedModel

_TOGETHER = 8  # images of which gradients are held at once


class Explanation(NamedTuple):
    """What an image holds that speaks for a class."""

    class_name: str
    heat: list[list[float]]
    """rows of cells, 0–1"""

    def to_dict(self, box: Sequence[float]) -> dict[str, Any]:
        """Return it as an answer has it; `box` is the part of the image that the heat covers."""
        return {"class": self.class_name, "box": list(box), "heat": self.heat}


def explain(
    trained: TrainedModel, images: Sequence[Tensor], metadata: Sequence[Row], class_names: Sequence[str]
) -> list[Explanation | None]:
    """Explain one class of each image, as Grad-CAM does; None where the network has no map to look at.

    Args:
        trained: the model.
        images: what its transform makes; of several views the first is looked at.
        metadata: the cells of each image.
        class_names: the class of each image.
    """
    found: list[Explanation | None] = []
    for start in range(0, len(images), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        pixels = [one[0] if one.ndim == 4 else one for one in images[part]]
        targets = torch.tensor([trained.class_names.index(name) for name in class_names[part]])
        maps = heat_maps_of(trained, pixels, metadata[part], targets)
        if maps is None:
            found += [None] * len(pixels)
            continue
        for name, heat in zip(class_names[part], maps.heat.tolist(), strict=True):
            found.append(Explanation(name, [[round(cell, 3) for cell in row] for row in heat]))
    return found


def box_of_crop(preprocessing: Preprocessing, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the part of an image (width, height) that the model sees: left, top, right, bottom, each 0–1."""
    seen = preprocessing.image_size / preprocessing.resize_size
    width, height = (seen * min(size) / side for side in size)
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2
