"""Train a head on features that a frozen backbone computes once for each view of an image.

A view is an image as one epoch's augmentation shows it, or as evaluation does. While nothing below the head
learns, the features of a view never change: an epoch that shows a view again needs the head alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from finetune.data.loading.share import in_shares
from finetune.machine.ranks import ALONE, Ranks
from finetune.training.events import Batches
from finetune.training.features import Features, in_features


class Key(Protocol):
    """Which training image, and the seed of its augmentation."""

    @property
    def position(self) -> int:
        """Its place among the training images, from 0."""
        ...

    @property
    def seed(self) -> int:
        """No two views of an image have the same."""
        ...


class Order(Protocol):
    """Which training images an epoch shows, in which order."""

    def keys(self, stage: int, epoch: int) -> Sequence[Key]:
        """Return the images of an epoch; one that comes again has another seed each time."""
        ...

    def positions(self, stage: int, epoch: int) -> list[int]:
        """Return the positions of the images of an epoch, in its order."""
        ...

    def left_out(self, stage: int, epoch: int) -> Sequence[Key]:
        """Return the images that an epoch does not show, as it would have shown them."""
        ...


@dataclass(frozen=True)
class Source:
    """Where the features of the training images come from."""

    order: Order
    read: Callable[[Sequence[Key]], Batches]
    """From keys to batches of images (N, 3, H, W) and what else they hold, in the order of the keys. All
    batches but the last have the size of a training batch."""
    others: tuple[Tensor, ...]
    """What else the head takes, and the targets, of all training images in the order of their positions."""
    extract: Callable[[Tensor], Tensor]
    """From images to pooled features (N, D)."""
    device: torch.device
    """Where the backbone is."""
    ranks: Ranks = ALONE
    """Who compute them together; each then has all."""

    def features(self, keys: Sequence[Key]) -> Iterator[tuple[Tensor, ...]]:
        """Compute the features (N, D) of batches of keys; return them with what else these hold."""
        for features, others in in_features(self.extract, self.read(keys), self.device):
            yield features, *others


class _OwnSampler:
    """A loader that chooses its epoch itself, as the sampler of a loader of images does."""

    _start = (0, 0, 0)  # stage, epoch, first batch

    @property
    def sampler(self) -> Self:
        """What chooses the epoch: the loader itself."""
        return self

    def start_epoch(self, stage: int, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch that the next pass goes through, and with which batch it begins."""
        self._start = stage, epoch, first_batch


class FeatureViews(_OwnSampler):
    """Loads the features of training images in batches, computed when a view is shown for the first time.

    An epoch shows the view of its number; where there are fewer views than epochs they come again in turn. An
    epoch that is computed is computed as the live training would, batch by batch, so that with as many views
    as epochs the head learns the same bits. An image that comes again within an epoch shows its next view.
    A pass over the first epoch that came before, to find a rate, is not computed again.
    """

    def __init__(self, source: Source, *, batch_size: int, views: int, epochs: int) -> None:
        """Prepare to load features for a number of epochs; nothing is computed yet."""
        self._source, self._batch_size, self._views = source, batch_size, views
        self._shown_again = views < epochs
        self._n = len(source.others[-1])
        self._features: dict[int, Tensor] = {}  # (n, D) by view
        self._known: dict[int, Tensor] = {}  # (n,) bool by view
        self._first_epoch: list[tuple[Tensor, ...]] = []

    def keys(self, stage: int, epoch: int) -> Sequence[Key]:
        """Return the images of an epoch, in its order."""
        return self._source.order.keys(stage, epoch)

    def positions(self, stage: int, epoch: int) -> list[int]:
        """Return the positions of the images of an epoch, in its order."""
        return self._source.order.positions(stage, epoch)

    def __len__(self) -> int:
        """Count the batches of an epoch; a last one that is not full is left out."""
        return self._n // self._batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Return batches of features (N, D), what else the head takes, and targets."""
        stage, epoch, first_batch = self._start
        if epoch > 0:
            self._first_epoch = []
        elif self._first_epoch:
            return iter(self._first_epoch[first_batch:])
        elif first_batch == 0:
            return self._remembered(stage)
        if epoch < self._views:
            return self._computed(stage, epoch, first_batch)
        return self._gathered(stage, epoch, first_batch)

    def _remembered(self, stage: int) -> Iterator[tuple[Tensor, ...]]:
        """Compute the first epoch, and remember it once its last batch is there."""
        batches = []
        for batch in self._computed(stage, 0, 0):
            batches.append(batch)
            if len(batches) == len(self):
                self._first_epoch = batches
            yield batch

    def _computed(self, stage: int, epoch: int, first_batch: int) -> Iterator[tuple[Tensor, ...]]:
        """Compute an epoch from its images, and what it leaves out if it is to be shown again."""
        keys = self._source.order.keys(stage, epoch)
        whole = None if self._shown_again else len(self) * self._batch_size
        rest = keys[first_batch * self._batch_size : whole]
        first_views = _first_views(keys)
        for number, (chunk, features, others) in enumerate(self._pass(rest), start=first_batch):
            if self._shown_again:
                self._keep(epoch, chunk, features, first_views)
            if number < len(self):
                yield features, *others
        if self._shown_again:
            self._complete(stage, epoch)

    def _gathered(self, stage: int, epoch: int, first_batch: int) -> Iterator[tuple[Tensor, ...]]:
        """Put an epoch together from views that are known, or computed for it."""
        times, shown = Counter[int](), list[tuple[int, int]]()
        for position in self.positions(stage, epoch):
            shown.append(((epoch + times[position]) % self._views, position))
            times[position] += 1
        for view in sorted({view for view, _ in shown}):
            self._complete(stage, view)
        for batch in range(first_batch, len(self)):
            rows = shown[batch * self._batch_size : (batch + 1) * self._batch_size]
            positions = torch.tensor([position for _, position in rows])
            yield self._views_of(rows), *(part[positions] for part in self._source.others)

    def _views_of(self, rows: Sequence[tuple[int, int]]) -> Tensor:
        """Return the features (N, D) of some views and positions; most often all are of one view."""
        views = {view for view, _ in rows}
        if len(views) > 1:
            return torch.stack([self._features[view][position] for view, position in rows])
        features = self._features[views.pop()]
        return features[_numbers([position for _, position in rows], features.device)]

    def _complete(self, stage: int, view: int) -> None:
        """Compute what is not known yet of a view, in the same batches as its epoch."""
        if view in self._known and self._known[view].all():
            return
        for keys in (self._source.order.keys(stage, view), self._source.order.left_out(stage, view)):
            first_views = _first_views(keys)
            for start in range(0, len(keys), self._batch_size):
                batch = keys[start : start + self._batch_size]
                if not self._all_known(view, batch):
                    for chunk, features, _ in self._pass(batch):
                        self._keep(view, chunk, features, first_views)

    def _pass(self, keys: Sequence[Key]) -> Iterator[tuple[Sequence[Key], Tensor, list[Tensor]]]:
        """Return the keys of each batch, their features, and what else it holds."""
        batches = in_shares(keys, self._batch_size, self._source.ranks, self._source.features)
        for number, (features, *others) in enumerate(batches):
            yield keys[number * self._batch_size : (number + 1) * self._batch_size], features, others

    def _keep(self, view: int, keys: Sequence[Key], features: Tensor, first_views: dict[int, int]) -> None:
        """Remember the features of the images that are shown in this view for the first time."""
        if view not in self._features:
            self._features[view] = features.new_empty(self._n, features.shape[1])
            self._known[view] = torch.zeros(self._n, dtype=torch.bool)
        rows = [row for row, key in enumerate(keys) if first_views[key.position] == key.seed]
        positions = [keys[row].position for row in rows]
        self._features[view][positions] = features[rows]
        self._known[view][positions] = True

    def _all_known(self, view: int, keys: Sequence[Key]) -> bool:
        return view in self._known and bool(self._known[view][[key.position for key in keys]].all())


class FirstEpoch(_OwnSampler):
    """Loads the features of what a first epoch shows, and shows them again in the order of later epochs.

    A search for a rate goes through the first batches many times. Its first epoch is that of the training;
    where all epochs show the same view of each image, so are the others.
    """

    def __init__(
        self, order: Order, features: Features, positions: Sequence[int], *, batch_size: int
    ) -> None:
        """Prepare to load.

        Args:
            order: which images an epoch shows.
            features: of the images that the first epoch shows, or of the first of them, in its order.
            positions: of these images. Others, of which nothing is known, are left out of later epochs.
            batch_size: of a training batch.
        """
        self._order, self._features = order, features
        self._batch_size = min(batch_size, len(positions))
        self._rows: dict[int, int] = {}
        for row, position in enumerate(positions):
            self._rows.setdefault(position, row)

    def __len__(self) -> int:
        """Count the batches of the first epoch; a last one that is not full is left out."""
        return len(self._features[0]) // self._batch_size

    def __iter__(self) -> Iterator[Features]:
        """Return batches of features (N, D), what else the head takes, and targets."""
        stage, epoch, first_batch = self._start
        shown = list(range(len(self._features[0])))
        if epoch > 0:
            positions = self._order.positions(stage, epoch)
            shown = [self._rows[position] for position in positions if position in self._rows]
        rows = _numbers(shown, self._features[0].device)
        for batch in range(first_batch, len(rows) // self._batch_size):
            chosen = rows[batch * self._batch_size : (batch + 1) * self._batch_size]
            yield tuple(part[chosen] for part in self._features)


class FixedView(_OwnSampler):
    """Loads features that are there in batches, in the order in which each epoch shows the images."""

    def __init__(self, order: Order, parts: tuple[Tensor, ...], *, batch_size: int) -> None:
        """Prepare to load.

        Args:
            order: which images an epoch shows.
            parts: the features (N, D) of all training images, what else the head takes, and targets.
            batch_size: of a training batch.
        """
        self._order, self._parts, self._batch_size = order, parts, batch_size

    def __len__(self) -> int:
        """Count the batches of an epoch; a last one that is not full is left out."""
        return len(self._parts[0]) // self._batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Return batches of features (N, D), what else the head takes, and targets."""
        stage, epoch, first_batch = self._start
        shown = _numbers(self._order.positions(stage, epoch), self._parts[0].device)
        for batch in range(first_batch, len(self)):
            rows = shown[batch * self._batch_size : (batch + 1) * self._batch_size]
            yield tuple(part[rows] for part in self._parts)


def _numbers(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Return numbers of rows (N,) on a device, which would wait for a copy of each list."""
    return torch.tensor(numbers, dtype=torch.int64, device=device)


def _first_views(keys: Sequence[Key]) -> dict[int, int]:
    """Return the seed with which each position comes first."""
    seeds: dict[int, int] = {}
    for key in keys:
        seeds.setdefault(key.position, key.seed)
    return seeds
