"""The features of a frozen backbone, computed once and reused in every step."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from finetune.training.events import Batches

Features = tuple[Tensor, ...]
"""Pooled features of some images (N, D), float32, what else the head takes, and their targets (N, …)."""


def in_features(
    extract: Callable[[Tensor], Tensor], batches: Batches, device: torch.device
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Return the features of each batch of images (N, D), float32, and what else the batch holds.

    Args:
        extract: from images (N, 3, H, W) to pooled features (N, D).
        batches: images, what else the head takes, and targets.
        device: where the model is, and the features will be.
    """
    for images, *others in batches:
        with torch.no_grad():
            features = extract(images.to(device, non_blocking=True)).float()
        yield features, others


def compute_features(
    extract: Callable[[Tensor], Tensor],
    batches: Batches,
    *,
    device: torch.device,
    most_batches: int | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Features:
    """Compute the features of one pass over batches of images.

    Args:
        extract: from images (N, 3, H, W) to pooled features (N, D).
        batches: images, what else the head takes, and targets.
        device: where the model is, and the features will be.
        most_batches: take no more than that many batches; None takes all.
        progress: called after each batch with its number of images.
    """
    found: list[Features] = []
    for number, (values, others) in enumerate(in_features(extract, batches, device), start=1):
        found.append((values, *(other.to(device) for other in others)))
        progress(len(values))
        if number == most_batches:
            break
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))
