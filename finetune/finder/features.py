"""What a frozen backbone says about the images, computed once and used in every step after."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from finetune.finder.trial import Batches
from finetune.seed import derive, permutation


class Features(NamedTuple):
    """Pooled features of some images, and their targets, on the device of the model."""

    values: Tensor
    """(N, D), float32"""
    targets: Tensor
    """(N,), int64"""


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
        batches: pairs of images and targets (N,).
        device: where the model is.
        most_batches: take no more than that many batches; None takes all.
        progress: called after each batch with its number of images.
    """
    values, targets = [], []
    with torch.no_grad():
        for number, (images, batch_targets) in enumerate(batches, start=1):
            values.append(extract(images.to(device, non_blocking=True)).float())
            targets.append(batch_targets.to(device))
            progress(len(images))
            if number == most_batches:
                break
    return Features(torch.cat(values), torch.cat(targets))


def feature_batches(features: Features, *, batch_size: int, seed: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Give the loader of training batches over cached features, in an order as `sampler.EpochSampler`'s."""
    sampler = _BatchOrder(len(features.targets), batch_size, seed)
    rows = _Rows(features)
    return DataLoader(rows, batch_size=None, sampler=sampler, generator=torch.Generator())


class _Rows(Dataset[tuple[Tensor, Tensor]]):
    """Features and targets, taken by a whole batch of positions at once."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __getitem__(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        values, targets = self.features
        index = torch.tensor(positions, device=values.device)
        return values[index], targets[index]


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
