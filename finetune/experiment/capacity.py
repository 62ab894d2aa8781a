"""What cannot fit this machine, said before it is tried: it would end in a killed process, minutes later."""

import itertools

import torch

from finetune.config.config import Config
from finetune.errors import ConfigError, ResourceError
from finetune.machine.device import total_memory
from finetune.model import ImageClassifier
from finetune.model.meta import largest_output

_FLOAT = 4  # bytes
_WORTH_A_LOOK = 0.02  # share of the memory that images alone take, from which the network is asked as well
_PER_VALUE = 9
"""bytes of each value of an image in a batch, at the least: as it is read, as a float, and normalised"""


def check_head(config: Config, classes: int) -> None:
    """Refuse a head whose weights and their gradients alone are more than the machine holds.

    Raises:
        ResourceError: says how much, and what to set.
    """
    hidden = list(config.model.head.hidden)
    weights = sum(one * other for one, other in itertools.pairwise([*hidden, classes]))
    _check(
        2 * _FLOAT * weights,
        torch.device("cpu"),  # where every model is built
        f"model.head.hidden: {hidden} is a head of {weights / 1e9:.3g} billion weights",
        "Set narrower layers: 512 is usual.",
    )


def check_batch(config: Config, model: ImageClassifier, batch_size: int, device: torch.device) -> None:
    """Refuse batches whose images, or the largest feature map of one layer, are more than the device holds.

    Raises:
        ResourceError: says how much, and what to set.
    """
    sizes = [model.preprocessing.image_size, *(stage.image_size for stage in config.stages)]
    side = max(size for size in sizes if size)
    needed = _PER_VALUE * 3 * batch_size * side**2
    if needed > (total_memory(device) or 0) * _WORTH_A_LOOK:
        each = 2 if model.spec.precision == "bfloat16" else _FLOAT
        needed = max(needed, each * batch_size * largest_output(model.backbone, side))
    _check(
        needed,
        device,
        f"data.batch_size: a batch of {batch_size:,} images of {side} px",
        "Set data.batch_size lower (data.accumulate keeps the size of a step), or data.image_size.",
    )


def check_augmentation(config: Config, model: ImageClassifier, device: torch.device) -> None:
    """Refuse `data.augment_on: device` where images cannot be resized there to the same grey levels.

    Raises:
        ConfigError: says what is in the way.
    """
    if config.data.augment_on == "cpu":
        return
    if device.type == "mps":
        what = "Apple's GPUs do not compute in float64, which resizing takes"
    elif model.preprocessing.interpolation == "nearest":
        what = "the device does not resize by nearest pixels, as these weights want it"
    else:
        return
    raise ConfigError(f"data.augment_on: {what}.\nWrite data.augment_on: cpu.")


def _check(needed: int, device: torch.device, what: str, advice: str) -> None:
    there = total_memory(device)
    if there is not None and needed > there:
        raise ResourceError(
            f"{what}, which takes at least {_gibibytes(needed)}; this machine has {_gibibytes(there)} "
            f"({device.type}).\n{advice}"
        )


def _gibibytes(size: int) -> str:
    number = size / 2**30
    return f"{number:,.0f} GiB" if number >= 10 else f"{number:.2g} GiB"
