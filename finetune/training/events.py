"""What a stage of training and its caller exchange: loaders, hooks, steps, epochs, positions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

Batches = Iterable[tuple[Tensor, ...]]
"""Each holds the inputs of a module and, as the last, the targets (N, …)."""


class EpochBatches(Protocol):
    """Loads the training batches of one epoch after another."""

    @property
    def sampler(self) -> Any:
        """What has `start_epoch(stage, epoch, first_batch)` and `keys(stage, epoch)`, as `EpochSampler`."""
        ...

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        ...

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Return the batches of the epoch that the sampler was told to start."""
        ...


class EventSink(Protocol):
    """Takes the events of a training beside its run directory."""

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event as events.jsonl has it, or a row of history.csv as the event `epoch`."""
        ...

    def close(self, state: str, best: Mapping[str, Any]) -> None:
        """Take the end of the training: a state of status.json, and the row of the best epoch, if any."""
        ...


@dataclass(frozen=True)
class Loaders:
    """What fastai expects of its `DataLoaders`, over plain torch loaders and one device.

    A batch holds the inputs of the model, images (N, 3, H, W) first, and targets (N, …) last.
    """

    train: DataLoader[tuple[Tensor, ...]]
    val: DataLoader[tuple[Tensor, ...]]
    device: torch.device

    def __getitem__(self, index: int) -> DataLoader[tuple[Tensor, ...]]:
        return (self.train, self.val)[index]


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    epoch: int
    step: int
    """Steps of this stage before this one."""
    loss: float
    """Mean loss of the batch, in nats."""
    lrs: tuple[float, ...]
    """Rate of each parameter group of the optimizer."""
    momentum: float | None
    images: int
    grad_norm: dict[str, float]
    """L2 norm of the gradient, before any clipping, by the name of the optimizer's parameter groups."""
    clip: float | None
    """What clipping multiplied the gradient by, 1 if it was short enough; None if there is no clipping."""


@dataclass(frozen=True)
class Epoch:
    """One epoch: a pass over the training images, then one over the validation images."""

    epoch: int
    train_loss: float
    """Mean over the epoch's images, as they were seen."""
    val_logits: Tensor
    """(N, C), on the CPU."""
    val_targets: Tensor
    """(N,) classes, or (N, C) where an image may have several; on the CPU."""
    seconds: float
    """Training and validation together."""
    images_per_second: float
    """In training."""


@dataclass(frozen=True)
class Reached:
    """How far a stage has come: a position between two steps, or between training and validation."""

    epoch: int = 0
    """Number of epochs that are done."""
    batch: int = 0
    """Training batches of the next one that are done; all of them when its validation is what comes next."""
    loss_sum: float = 0.0
    """Over the images of these batches."""
    images_seen: int = 0
    seconds: float = 0.0
    """Time that these batches took."""


START = Reached()

Moment = Literal["step", "val_batch", "epoch"]
"""What has just ended, where training could be saved."""


@dataclass(frozen=True)
class Hooks:
    """What the caller does during training. An error raised by a hook ends it, and arrives unchanged."""

    step: Callable[[Step], None]
    epoch: Callable[[Epoch], bool | None]
    """Called after an epoch, with the validated weights in the model; true ends the stage with it."""
    val_batch: Callable[[int, int], None]
    """Called with the number of validation batches done and their total."""
    due: Callable[[Moment], bool] = lambda moment: False
    """Called after every step, every validation batch, and every epoch that is not the last of its stage;
    true if `save` is to be called now."""
    save: Callable[[Reached], None] = lambda reached: None
    """Called where `due` is true, and at the end of the stage; all weights are finite then."""


def with_epochs(
    events: Sequence[Mapping[str, Any]], history: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Return the events of a run, and after the last step of each epoch its row as the event `epoch`."""
    ends = {
        (event["stage"], event["epoch"]): place
        for place, event in enumerate(events)
        if event.get("event") == "step"
    }
    rows = {ends.get((row["stage"], row["epoch"])): row for row in history}
    for place, event in enumerate(events):
        yield event
        if place in rows:
            yield {"event": "epoch", **rows[place]}
