"""fastai's loop with our randomness, our guards and our hooks, and with a place to begin at."""

import time
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from finetune.machine.device import LateNumbers
from finetune.seed import derive, seed_all
from finetune.training.events import Epoch, Hooks, Loaders, OneCycle, Position, Reached, Step
from finetune.training.guards import Evidence, Place, check_step, check_weights
from finetune.training.norms import Norms, StageTensors, clip_factor, norms_by_group, tensor_norms

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # fastai still decorates with torch.jit.script
    from fastai.callback.core import CancelEpochException, TrainEvalCallback
    from fastai.callback.schedule import ParamScheduler, combined_cos
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper


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
    Where the model and the state of the optimizer are those that `hooks.save` saw, training from the position
    that it was given goes on as if it had never stopped: order, augmentation, dropout, rates and momentum are
    functions of the step.

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
        self.opt = self.opt_func  # fastai would take it up when it begins to fit, and clear its state
        self.position, self.hooks, self.torch_optimizer = position, hooks, optimizer
        self.clip_norm, self.reached = clip_norm, position.reached
        self.tensors = StageTensors(model, optimizer)
        self.unread: _Unread | None = None

    def _do_fit(self) -> None:
        for epoch in range(self.reached.epoch, self.n_epoch):
            self.epoch = epoch
            self._with_events(self._do_epoch, "epoch", CancelEpochException)
            self.reached = Reached(epoch + 1)
            last = self.over or epoch + 1 == self.n_epoch
            if last or self.hooks.due("epoch"):
                self.hooks.save(self.reached)
            if self.over:
                break

    def _do_epoch(self) -> None:
        batches = len(self.dls.train)
        self.train_iter = self.epoch * batches + self.reached.batch
        self.val_logits: list[Tensor] = []
        self.val_targets: list[Tensor] = []
        self.trained_since = time.perf_counter() - self.reached.seconds
        if self.reached.batch < batches:
            self._do_epoch_train()
            self._look_back(batches)
        trained = self.reached
        self._do_epoch_validate()
        self.over = self.hooks.epoch(
            Epoch(
                epoch=self.epoch,
                train_loss=trained.loss_sum / trained.images_seen,
                val_logits=torch.cat(self.val_logits),
                val_targets=torch.cat(self.val_targets),
                seconds=time.perf_counter() - self.trained_since,
                images_per_second=trained.images_seen / trained.seconds,
            )
        )

    def _do_epoch_train(self) -> None:
        self.first_batch = self.reached.batch
        self.dls.train.sampler.start_epoch(self.position.stage, self.epoch, self.first_batch)
        super()._do_epoch_train()

    def one_batch(self, i: int, b: tuple[Tensor, ...]) -> None:
        if not self.training:
            super().one_batch(i, b)
            self.hooks.val_batch(i + 1, self.n_iter)
        else:
            i += self.first_batch
            seed_all(derive(self.position.seed, "dropout", self.position.stage, self.epoch, i))
            # fastai adds up what each batch is of the whole; a sum would depend on where it began.
            self.pct_train = self.train_iter / (self.n_epoch * self.n_iter)
            super().one_batch(i, b)
        if self.hooks.due("step" if self.training else "val_batch"):
            if self.training:
                self._look_back(i + 1)
            self.hooks.save(self.reached)

    def _look_back(self, batches: int) -> None:
        """Take in all that was trained in this epoch, and make sure that it can be kept."""
        self._read_step()
        self._check_weights()
        seconds = time.perf_counter() - self.trained_since
        self.reached = replace(self.reached, batch=batches, seconds=seconds)

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
        self.reached = replace(
            self.reached,
            loss_sum=self.reached.loss_sum + loss * images,
            images_seen=self.reached.images_seen + images,
        )
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
        """Look at the weights after the last step: only finite ones are validated, and kept."""
        names = [name for name, _ in self.tensors.moving]
        norms = tensor_norms(self.tensors.moving).tolist()
        check_weights(
            Norms(names, norms), Place(self.position.stage, self.epoch, self.train_iter - 1, self._rates())
        )
