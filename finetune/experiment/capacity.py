"""What cannot fit this machine, said before it is tried: it would end in a killed process, minutes later."""

import itertools

import torch

from finetune.config.config import Config
from finetune.errors import ResourceError
from finetune.machine.device import total_memory

_FLOAT = 4  # bytes
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


def check_batch(config: Config, batch_size: int, image_size: int, device: torch.device) -> None:
    """Refuse batches of images that alone are more than the device holds, whatever the network makes of them.

    Raises:
        ResourceError: says how much, and what to set.
    """
    side = max([image_size, *(stage.image_size for stage in config.stages if stage.image_size)])
    _check(
        _PER_VALUE * 3 * batch_size * side**2,
        device,
        f"data.batch_size: a batch of {batch_size:,} images of {side} px",
        "Set data.batch_size lower (data.accumulate keeps the size of a step), or data.image_size.",
    )


def _check(needed: int, device: torch.device, what: str, advice: str) -> None:
    there = total_memory(device)
    if there is not None and needed > there:
        raise ResourceError(
            f"{what}, which takes at least {needed / 2**30:,.0f} GiB; this machine has "
            f"{there / 2**30:,.1f} GiB ({device.type}).\n{advice}"
        )
