"""Turn bytes into what a backbone was trained on, on a CPU."""

import torch
from torch import Tensor

_AT_ONCE = 150_000  # numbers for each thread, which a core's own cache holds


def normalise_bytes(images: Tensor, mean: Tensor, std: Tensor, *, channels_last: bool) -> Tensor:
    """Return `(images / 255 - mean) / std`, float32, to the same bits as this formula.

    Some images go through all of it before the next ones do: a whole batch would be written to memory and
    read again at each step, which takes twice the time.

    Args:
        images: (N, C, H, W), uint8.
        mean: (1, C, 1, 1), in 0–1.
        std: (1, C, 1, 1), in 0–1.
        channels_last: how the result lies in memory; else as the images do.
    """
    form = torch.channels_last if channels_last else torch.preserve_format
    result = torch.empty_like(images, dtype=torch.float32, memory_format=form)
    together = max(1, _AT_ONCE * torch.get_num_threads() // max(1, images[:1].numel()))
    for some, normalised in zip(torch.split(images, together), torch.split(result, together), strict=True):
        normalised.copy_(some.to(torch.float32).div_(255).sub_(mean).div_(std))
    return result
