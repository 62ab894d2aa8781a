"""The one door to fastai: it runs a stage of training; everything it may not decide is handed to it.

fastai's `Learner` runs the loop and its `ParamScheduler` the schedule, that of its `fit_one_cycle`. Three
habits of it are kept out here: its default callbacks (a progress bar, a recorder whose loss is a moving
average), its own choice of device, and its rewriting of errors raised inside callbacks: the reason why the
hooks below are no callbacks.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_
from torch.utils.data import DataLoader

from finetune.device import LateNumbers
from finetune.guards import Evidence, Place, check_step, check_weights
from finetune.norms import Norms, StageTensors, clip_factor, norms_by_group, tensor_norms
from finetune.seed import derive, seed_all

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # fastai still decorates with torch.jit.script
    from fastai.callback.core import TrainEvalCallback
    from fastai.callback.schedule import ParamScheduler, combined_cos
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper


@dataclass(frozen=True)
class OneCycle:
    """Shape of the one-cycle schedule, in the words of fastai's `fit_one_cycle`."""

    pct_start: float = 0.25
    div: float = 25.0
    div_final: float = 1e5
    moms: tuple[float, float, float] | None = (0.95, 0.85, 0.95)
    """Momentum at the start, at the peak and at the end; None for an optimizer that has none."""


@dataclass(frozen=True)
class Loaders:
    """What fastai expects of its `DataLoaders`, over plain torch loaders and one device."""

    train: DataLoader[tuple[Tensor, Tensor]]
    val: DataLoader[tuple[Tensor, Tensor]]
    device: torch.device

    def __getitem__(self, index: int) -> DataLoader[tuple[Tensor, Tensor]]:
        return (self.train, self.val)[index]


@dataclass(frozen=True)
class Step:
    """One optimizer step, as it was taken."""

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
    """(N,), on the CPU."""
    seconds: float
    """Training and validation together."""
    images_per_second: float
    """In training."""


@dataclass(frozen=True)
class Hooks:
    """What to do as training goes along. An error raised by a hook ends the training as it is."""

    step: Callable[[Step], None]
    epoch: Callable[[Epoch], None]
    val_batch: Callable[[int, int], None]
    """Called with the number of validation batches done and their total."""


@dataclass(frozen=True)
class Position:
    """Where in the experiment a stage stands; all randomness is a function of it."""

    seed: int
    stage: int


def fit_one_cycle(
    model: nn.Module,
    loaders: Loaders,
    *,
    optimizer: torch.optim.Optimizer,
    loss: nn.Module,
    epochs: int,
    cycle: OneCycle,
    position: Position,
    hooks: Hooks,
    clip_norm: float | None = None,
) -> None:
    """Train for one cycle; each parameter group peaks at the rate that the optimizer holds for it.

    `clip_norm` is the largest norm that the gradient of all trained parameters may have; None for any.

    Raises:
        DivergenceError: a loss that is negative, or a loss, gradient or weight that is not finite.
    """
    model.train()
    learner = _StageLearner(
        model,
        loaders,
        optimizer=optimizer,
        loss=loss,
        position=position,
        hooks=hooks,
        clip_norm=clip_norm,
    )
    peaks = np.array([float(group["lr"]) for group in optimizer.param_groups])
    schedule = {"lr": combined_cos(cycle.pct_start, peaks / cycle.div, peaks, peaks / cycle.div_final)}
    # fastai's own `fit_one_cycle` always moves a momentum: it would give one to torch's SGD, and it fails on
    # optimizers that have no such setting.
    if cycle.moms is not None:
        schedule["mom"] = combined_cos(cycle.pct_start, *cycle.moms)
    learner.fit(epochs, cbs=ParamScheduler(schedule))


@dataclass(frozen=True)
class _Unread:
    """What a step has left, while the device may still be at it."""

    numbers: LateNumbers
    """The loss, then the norms of what moves, before the step, and of the gradients."""
    place: Place
    momentum: float | None
    gradients: list[str]
    """Names of the parameters that had one."""
    batch: tuple[Tensor, Tensor]


class _StageLearner(Learner):  # type: ignore[misc]
    """fastai's loop with our randomness, our guards and our hooks."""

    def __init__(
        self,
        model: nn.Module,
        loaders: Loaders,
        *,
        optimizer: torch.optim.Optimizer,
        loss: nn.Module,
        position: Position,
        hooks: Hooks,
        clip_norm: float | None,
    ) -> None:
        # `wd=None` and `wd_bn_bias=True` leave the optimizer's own weight decay per group alone;
        # `train_bn=False` leaves frozen batch norm alone: the model itself knows what is frozen.
        super().__init__(
            loaders,
            model,
            loss_func=loss,
            opt_func=OptimWrapper(opt=optimizer),
            cbs=[TrainEvalCallback()],
            default_cbs=False,
            wd=None,
            wd_bn_bias=True,
            train_bn=False,
        )
        self.position, self.hooks, self.torch_optimizer = position, hooks, optimizer
        self.clip_norm = clip_norm
        self.tensors = StageTensors(model, optimizer)
        self.unread: _Unread | None = None

    def _do_epoch(self) -> None:
        started = time.perf_counter()
        self.loss_sum, self.images_seen = 0.0, 0
        self.val_logits: list[Tensor] = []
        self.val_targets: list[Tensor] = []
        self._do_epoch_train()
        self._read_step()
        self._check_weights()
        trained = time.perf_counter()
        self._do_epoch_validate()
        self.hooks.epoch(
            Epoch(
                epoch=self.epoch,
                train_loss=self.loss_sum / self.images_seen,
                val_logits=torch.cat(self.val_logits),
                val_targets=torch.cat(self.val_targets),
                seconds=time.perf_counter() - started,
                images_per_second=self.images_seen / (trained - started),
            )
        )

    def _do_epoch_train(self) -> None:
        self.dls.train.sampler.start_epoch(self.position.stage, self.epoch)
        super()._do_epoch_train()

    def one_batch(self, i: int, b: tuple[Tensor, Tensor]) -> None:
        if self.training:
            seed_all(derive(self.position.seed, "dropout", self.position.stage, self.epoch, i))
        super().one_batch(i, b)
        if not self.training:
            self.hooks.val_batch(i + 1, self.n_iter)

    def _do_one_batch(self) -> None:
        if not self.training:
            self.val_logits.append(self.model(*self.xb).cpu())
            self.val_targets.append(self.yb[0].cpu())
            return
        weights = tensor_norms(self.tensors.moving)
        super()._do_one_batch()
        self._read_step()
        self.unread = _Unread(
            numbers=LateNumbers(torch.cat([self.loss.detach()[None], weights, self.gradient_norms])),
            place=Place(self.position.stage, self.epoch, self.train_iter, self._rates()),
            momentum=self._momentum(),
            gradients=self.gradient_names,
            batch=(self.xb[0], self.yb[0]),
        )

    def _step(self) -> None:
        gradients = self.tensors.gradients()
        self.gradient_names = [name for name, _ in gradients]
        self.gradient_norms = tensor_norms(gradients)
        if self.clip_norm is not None:
            learning = [parameter for _, parameter in self.tensors.learning]
            clip_grads_with_norm_(learning, self.clip_norm, torch.linalg.vector_norm(self.gradient_norms))
        super()._step()

    def _rates(self) -> tuple[float, ...]:
        return tuple(float(group["lr"]) for group in self.torch_optimizer.param_groups)

    def _momentum(self) -> float | None:
        group = self.torch_optimizer.param_groups[0]
        return float(group["betas"][0] if "betas" in group else group.get("momentum", 0)) or None

    def _read_step(self) -> None:
        """Take in what the step before has left, so that a GPU never waits for the CPU to look at it."""
        if self.unread is None:
            return
        unread, self.unread = self.unread, None
        loss, *norms = unread.numbers.read()
        moving = [name for name, _ in self.tensors.moving]
        gradients = Norms(unread.gradients, norms[len(moving) :])
        place, images = unread.place, len(unread.batch[0])
        check_step(
            Evidence(
                place=place,
                loss=loss,
                weights=Norms(moving, norms[: len(moving)]),
                gradients=gradients,
                still=self.tensors.still,
                batch=unread.batch,
            )
        )
        self.loss_sum += loss * images
        self.images_seen += images
        self.hooks.step(
            Step(
                epoch=place.epoch,
                step=place.step,
                loss=loss,
                lrs=place.lrs,
                momentum=unread.momentum,
                images=images,
                grad_norm=norms_by_group(gradients, self.tensors.group_of),
                clip=None if self.clip_norm is None else clip_factor(gradients.values, self.clip_norm),
            )
        )

    def _check_weights(self) -> None:
        """Look at the weights that an epoch ends with: only finite ones are validated, and kept."""
        names = [name for name, _ in self.tensors.moving]
        norms = tensor_norms(self.tensors.moving).tolist()
        check_weights(
            Norms(names, norms), Place(self.position.stage, self.epoch, self.train_iter - 1, self._rates())
        )
