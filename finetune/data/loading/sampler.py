"""The order of the training images, and the seed of each one's augmentation, as functions of the position."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

from finetune.seed import derive, derive_each, permutation

# Keys that are made at once: in blocks for speed, and few enough that a pass begins at once.
_TOGETHER = 4096


class TrainKey(NamedTuple):
    """Which training image, and the seed of its augmentation."""

    position: int
    seed: int


class EpochSampler(Sampler[TrainKey]):
    """The order of the training images and the seed of each, as functions of (seed, stage, epoch)."""

    def __init__(
        self,
        n_images: int,
        batch_size: int,
        seed: int,
        order: Callable[[int], list[int]] | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        """Draw `n_images` positions in the `order` that belongs to a seed; by default each of them once.

        A pass goes through these `rows` of each full batch, where others go through the rest; None for all.
        """
        self.rows = rows
        self.n_images, self.batch_size, self.seed = n_images, batch_size, seed
        self.order = order if order is not None else partial(permutation, n_images)
        self._start: tuple[int, int, int] | None = None

    def start_epoch(self, stage: int, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch that the next pass goes through; it begins at `first_batch`, at no cost."""
        self._start = stage, epoch, first_batch

    def __len__(self) -> int:
        """Count the images that a pass goes through in a whole epoch, wherever the next one begins."""
        return self.n_images if self.rows is None else self.n_images // self.batch_size * len(self.rows)

    def __iter__(self) -> Iterator[TrainKey]:
        if self._start is None:
            raise RuntimeError("start_epoch() comes before each pass; epochs would repeat without it")
        stage, epoch, first_batch = self._start
        self._start = None
        keys = self._keys(stage, epoch, first_batch * self.batch_size)
        if self.rows is None:
            yield from keys
            return
        while len(batch := list(islice(keys, self.batch_size))) == self.batch_size:
            yield from (batch[row] for row in self.rows)

    def keys(self, stage: int, epoch: int) -> list[TrainKey]:
        """Return the images of a whole epoch, in its order."""
        return list(self._keys(stage, epoch, 0))

    def positions(self, stage: int, epoch: int) -> list[int]:
        """Return the positions of the images of a whole epoch, in its order."""
        return self.order(derive(self.seed, "order", stage, epoch))

    def _keys(self, stage: int, epoch: int, skipped: int) -> Iterator[TrainKey]:
        order, purpose = self.positions(stage, epoch), f"augment\0{stage}\0{epoch}"
        # An image that comes again in an epoch is augmented in another way each time.
        names = _numbered(order) if len(set(order)) < len(order) else None
        for start in range(skipped, len(order), _TOGETHER):
            positions = order[start : start + _TOGETHER]
            told = map(str, positions) if names is None else names[start : start + _TOGETHER]
            yield from map(TrainKey, positions, derive_each(self.seed, purpose, told))

    def left_out(self, stage: int, epoch: int) -> list[TrainKey]:
        """Return the images that an epoch does not show, as it would have shown them."""
        shown = set(self.positions(stage, epoch))
        return [
            TrainKey(position, derive(self.seed, "augment", stage, epoch, position))
            for position in range(self.n_images)
            if position not in shown
        ]


def _numbered(order: Sequence[int]) -> list[str]:
    """Return each position as text, and for one that comes again how often it has come, after a NUL."""
    times, names = Counter[int](), []
    for position in order:
        names.append(f"{position}\0{times[position]}" if times[position] else str(position))
        times[position] += 1
    return names


def balanced_order(targets: Sequence[int], weights: Sequence[float], seed: int) -> list[int]:
    """Return positions of images for an epoch as long as ever, in which each class has its weighted share.

    It is a function of `seed` (a result of `finetune.seed.derive`). The images of a class are taken
    equally often, but for one: a class that is to have 30 of its 7 images takes each of them 4 or 5 times.

    Args:
        targets: the class of each image.
        weights: the weight of an image of each class, with a mean of 1 over the images.
        seed: decides the order, and which images are taken once more than others.
    """
    generator = torch.Generator().manual_seed(seed)
    by_class: dict[int, list[int]] = defaultdict(list)
    for position, target in enumerate(targets):
        by_class[target].append(position)
    # Shares are no whole numbers: one random offset rounds all of them so that their sum stays the same.
    offset = float(torch.rand(1, generator=generator, dtype=torch.float64))
    filled, share, order = 0, 0.0, []
    for target, members in sorted(by_class.items()):
        share += len(members) * weights[target]
        number = math.floor(share + offset) - filled
        filled += number
        rounds, rest = divmod(number, len(members))
        shuffled = torch.randperm(len(members), generator=generator).tolist()
        order += members * rounds + [members[chosen] for chosen in shuffled[:rest]]
    mixed = torch.randperm(len(order), generator=generator).tolist()
    return [order[chosen] for chosen in mixed]
