"""The features of a frozen backbone, computed once and reused in every step."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from finetune.seed import derive, permutation
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


def feature_batches(features: Features, *, batch_size: int, seed: int) -> DataLoader[Features]:
    """Return the loader of training batches over cached features, in an order as `sampler.EpochSampler`'s."""
    sampler = _BatchOrder(len(features[0]), batch_size, seed)
    rows = _Rows(features)
    return DataLoader(rows, batch_size=None, sampler=sampler, generator=torch.Generator())


class _Rows(Dataset[Features]):
    """Features and all that belongs to them, indexed by a whole batch of positions at once."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __getitem__(self, positions: Sequence[int]) -> Features:
        index = torch.tensor(positions, device=self.features[0].device)
        return tuple(part[index] for part in self.features)


class _BatchOrder(Sampler[list[int]]):
    """The positions of each full batch, as functions of (seed, stage, epoch)."""

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size, self.seed = n, min(batch_size, n), seed
        self._start = (0, 0, 0)

    def start_epoch(self, stage: int, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch that the next pass goes through, and with which batch it begins."""
        self._start = stage, epoch, first_batch

    def __len__(self) -> int:
        return self.n // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        stage, epoch, first_batch = self._start
        order = permutation(self.n, derive(self.seed, "order", stage, epoch))
        for batch in range(first_batch, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]
