"""How pixels become what a pretrained backbone expects, as its weights say and never as we guess."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, cast, get_args

from finetune.choices import Interpolation
from finetune.errors import CheckpointError

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalisation that belong to a set of weights."""

    image_size: int
    """Side in pixels of the square crop that enters the model."""
    resize_size: int
    """Length in pixels to which the shorter side is resized before the centre crop of evaluation."""
    mean: Colour
    """Mean of red, green and blue, subtracted from pixels in 0–1."""
    std: Colour
    """Standard deviation of red, green and blue, by which pixels are divided after that."""
    interpolation: Interpolation
    """How images are resized, with antialiasing."""

    @classmethod
    def from_weights(cls, transforms: Any) -> Self:
        """Read the evaluation transform of torchvision weights (`weights.transforms()`)."""
        return cls(
            image_size=transforms.crop_size[0],
            resize_size=transforms.resize_size[0],
            mean=_colour(transforms.mean),
            std=_colour(transforms.std),
            interpolation=transforms.interpolation.value,
        )

    def scaled_to(self, image_size: int) -> Self:
        """Take another image size and keep the ratio of resize to crop, so that the same part is seen."""
        resize_size = max(image_size, round(self.resize_size * image_size / self.image_size))
        return replace(self, image_size=image_size, resize_size=resize_size)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave.

        Raises:
            CheckpointError: a field is missing, unknown, or has an impossible value.
        """
        wanted = set(cls.__dataclass_fields__)
        given = set(fields) if isinstance(fields, Mapping) else set()
        if given != wanted:
            wrong = ", ".join(sorted(given ^ wanted))
            raise CheckpointError(f"preprocessing: fields that are missing or unknown: {wrong}.")
        sizes = [fields["image_size"], fields["resize_size"]]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise CheckpointError(f"preprocessing: sizes must be whole numbers of pixels, not {sizes}.")
        if fields["interpolation"] not in get_args(Interpolation):
            raise CheckpointError(f"preprocessing: no interpolation is called {fields['interpolation']!r}.")
        mean, std = _colour(fields["mean"]), _colour(fields["std"])
        if min(std) <= 0:
            raise CheckpointError(f"preprocessing: std must be positive, not {std}.")
        interpolation = cast(Interpolation, fields["interpolation"])
        return cls(sizes[0], sizes[1], mean, std, interpolation)


def _colour(values: Any) -> Colour:
    """Check that `values` is one finite number each for red, green and blue."""
    numbers = list(values) if isinstance(values, list | tuple) else []
    if len(numbers) != 3 or not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers):
        raise CheckpointError(f"preprocessing: expected three numbers (red, green, blue), not {values!r}.")
    red, green, blue = map(float, numbers)
    return red, green, blue
