"""A stage of training on fastai's loop: with our step and our schedule, resumable at any batch."""

import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from finetune.errors import DivergenceError
from finetune.machine.device import LateNumbers
from finetune.optim.schedule import OneCycle
from finetune.training.averaging import WeightAverage
from finetune.training.events import Epoch, Hooks, Loaders, Reached, Step
from finetune.training.guards import Evidence, Place, check_step, check_weights, faults_of, worst_of
from finetune.training.inference import put_together
from finetune.training.norms import Norms, clip_factor, norms_by_group
from finetune.training.step import TrainingStep

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # fastai still decorates with torch.jit.script
    from fastai.callback.core import (
        Callback,
        CancelBatchException,
        CancelEpochException,
        CancelFitException,
        CancelTrainException,
        TrainEvalCallback,
    )
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper


def fit_one_cycle(
    step: TrainingStep,
    loaders: Loaders,
    *,
    epochs: int,
    cycle: OneCycle,
    hooks: Hooks,
    reached: Reached,
    average: WeightAverage | None = None,
) -> None:
    """Train for one cycle; each parameter group peaks at the rate that it held when `step` was made.

    With an `average` of what moves, it is what the model holds in validation, in `hooks.epoch` and at the
    end; otherwise, and in `hooks.save` within the stage, the model holds what the steps go on from.

    A training can be resumed: from the model and the state of the optimizer that `hooks.save` saw, and the
    position that it was given, it continues as if it had never stopped. Order, augmentation, dropout, rates
    and momentum are functions of the step.

    Raises:
        DivergenceError: a loss that is negative, or a loss, gradient or weight that is not finite.
    """
    stage = _Stage(
        step,
        epochs=epochs,
        batches=len(loaders.train),
        cycle=cycle,
        hooks=hooks,
        reached=reached,
        average=average,
    )
    _learner(step, loaders, stage).fit(epochs)


class _Learner(Learner):  # type: ignore[misc]
    """fastai's loop, for which batches are copied to the device without waiting."""

    def _set_device(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Put a batch where the loaders are; most are there already.

        fastai's own version lets a GPU wait for each copy, and walks through whatever a batch may hold.
        """
        return tuple(part.to(self.dls.device, non_blocking=True) for part in batch)


def _learner(step: TrainingStep, loaders: Loaders, stage: "_Stage") -> _Learner:
    # `wd=None` and `wd_bn_bias=True` leave the optimizer's own weight decay per group alone;
    # `train_bn=False` leaves frozen batch norm alone: the model itself knows what is frozen.
    return _Learner(
        loaders,
        step.module,
        loss_func=step.loss,
        # A function: fastai would clear the state of an optimizer that is handed to it ready-made.
        opt_func=lambda parameters, lr: OptimWrapper(opt=step.optimizer),
        cbs=[TrainEvalCallback(), _StageEvents(stage)],
        default_cbs=False,
        wd=None,
        wd_bn_bias=True,
        train_bn=False,
    )


class _StageEvents(Callback):  # type: ignore[misc]
    """Hands the events of fastai's loop to a stage."""

    def __init__(self, stage: "_Stage") -> None:
        self._stage = stage

    def __call__(self, event_name: str) -> None:
        """Call what the stage does at an event.

        fastai's own version rewrites the text of every error raised below it, and raises IndexError in place
        of one without arguments.
        """
        handler = getattr(self._stage, event_name, None)
        if handler is not None:
            handler(self.learn)


@dataclass(frozen=True)
class _Unread:
    """What a step has measured; the device may still be computing the numbers."""

    numbers: LateNumbers
    """The loss, then the norms of what moves, before the step, and of the gradients."""
    place: Place
    momentum: float | None
    gradients: list[str]
    """Names of the parameters that had one."""
    batch: tuple[Tensor, Tensor]
    images: int
    """Of the whole batch, of which this rank may have seen a part."""
    own_loss: Tensor
    """What these added to the loss, ()."""


class _Stage:
    """What happens in a stage; the methods without an underscore are named after fastai's events.

    A plain class: an attribute that is set on a fastai callback may shadow one of the learner, or of the
    model behind it.
    """

    def __init__(
        self,
        step: TrainingStep,
        *,
        epochs: int,
        batches: int,
        cycle: OneCycle,
        hooks: Hooks,
        reached: Reached,
        average: WeightAverage | None,
    ) -> None:
        self._step, self._epochs, self._batches = step, epochs, batches
        self._cycle, self._hooks, self._reached, self._average = cycle, hooks, reached, average
        self._first_batch = reached.batch
        self._began = time.perf_counter()
        self._place = Place(step.stage, 0, 0, step.group_rates)
        self._unread: _Unread | None = None
        self._val: list[tuple[Tensor, Tensor]] = []

    def before_epoch(self, learner: Any) -> None:
        if learner.epoch < self._reached.epoch:
            raise CancelEpochException  # it was trained before an interruption
        self._val = []
        self._began = time.perf_counter() - self._reached.seconds

    def before_train(self, learner: Any) -> None:
        self._first_batch = self._reached.batch
        if self._first_batch == self._batches:
            raise CancelTrainException  # only the validation was interrupted
        learner.dls.train.sampler.start_epoch(self._step.stage, learner.epoch, self._first_batch)

    def before_batch(self, learner: Any) -> None:
        if learner.training:
            self._train(learner.xb, learner.yb[0], learner.epoch, self._first_batch + learner.iter)
        else:
            self._val.append((learner.model(*learner.xb), learner.yb[0]))
        raise CancelBatchException  # this was the batch: fastai's own step neither seeds nor clips

    def after_batch(self, learner: Any) -> None:
        if not learner.training:
            self._hooks.val_batch(learner.iter + 1, learner.n_iter)
        if self._hooks.due("step" if learner.training else "val_batch"):
            if learner.training:
                self._look_back(self._first_batch + learner.iter + 1)
            self._save()

    def after_train(self, learner: Any) -> None:
        if self._reached.batch < self._batches:
            self._look_back(self._batches)

    def before_validate(self, learner: Any) -> None:
        if self._average is not None:
            self._average.put_into_model()

    def after_epoch(self, learner: Any) -> None:
        if learner.epoch < self._reached.epoch:
            return  # it was skipped
        logits, targets = zip(*self._val, strict=True)
        over = self._hooks.epoch(
            Epoch(
                epoch=learner.epoch,
                train_loss=self._reached.loss_sum / self._reached.images_seen,
                val_logits=put_together(learner.dls.val, torch.cat(logits).cpu()),
                val_targets=put_together(learner.dls.val, torch.cat(targets).cpu()),
                seconds=time.perf_counter() - self._began,
                images_per_second=self._reached.images_seen / self._reached.seconds,
            )
        )
        self._reached = Reached(learner.epoch + 1)
        last = over or self._reached.epoch == self._epochs
        if self._average is not None and not last:  # after the last, the next stage starts from it
            self._average.take_out()
        if last or self._hooks.due("epoch"):
            self._hooks.save(self._reached)
        if over:
            raise CancelFitException

    def _save(self) -> None:
        """Save within an epoch; in validation too with the weights that the steps go on from."""
        average = self._average
        if average is None or not average.is_in_model:
            self._hooks.save(self._reached)
            return
        average.take_out()
        self._hooks.save(self._reached)
        average.put_into_model()

    def _train(self, inputs: tuple[Tensor, ...], targets: Tensor, epoch: int, batch: int) -> None:
        number = epoch * self._batches + batch
        # fastai adds up what each batch is of the whole; a sum would depend on where it began.
        where = number / (self._epochs * self._batches)
        rates = self._cycle.rates(where, self._step.group_rates)
        momentum = self._cycle.momentum(where)
        weights = self._step.tensors.norms(self._step.tensors.moving)
        outcome = self._step(inputs, targets, epoch=epoch, batch=batch, rates=rates, momentum=momentum)
        if self._average is not None:
            self._average.update(number)
        self._read_step()  # the one before, while the device is at this one
        self._place = Place(self._step.stage, epoch, number, rates)
        self._unread = _Unread(
            numbers=LateNumbers(torch.cat([outcome.loss[None], weights, outcome.gradient_norms])),
            place=self._place,
            momentum=momentum or None,
            gradients=outcome.gradients,
            batch=(inputs[0], targets),
            images=outcome.images,
            own_loss=outcome.own_loss,
        )

    def _look_back(self, batches: int) -> None:
        """Account for all batches of this epoch so far, and make sure that the weights can be saved."""
        self._read_step()
        tensors = self._step.tensors
        norms = tensors.norms(tensors.moving).tolist()
        check_weights(Norms([name for name, _ in tensors.moving], norms), self._place)
        seconds = time.perf_counter() - self._began
        self._reached = replace(self._reached, batch=batches, seconds=seconds)

    def _with_rank(self, error: DivergenceError, unread: _Unread) -> DivergenceError:
        """Say on which rank a training diverged: all notice it at the same step, from the same sums.

        A loss that is not finite is soon so on all, by way of batch norm; a broken image is on one.
        """
        share = self._step.options.share
        if share is None:
            return error
        faults = faults_of(unread.batch, float(unread.own_loss), self._step.tensors.still)
        found = share.ranks.of_each((faults, str(error)))
        return DivergenceError(worst_of(found), step=error.step)

    def _read_step(self) -> None:
        """Read what the last step has measured: one step later, so that a GPU never waits for the CPU."""
        if self._unread is None:
            return
        unread, self._unread = self._unread, None
        loss, *norms = unread.numbers.read()
        moving = [name for name, _ in self._step.tensors.moving]
        gradients = Norms(unread.gradients, norms[len(moving) :])
        weights = Norms(moving, norms[: len(moving)])
        still, images = self._step.tensors.still, unread.images
        try:
            check_step(Evidence(unread.place, loss, gradients, weights, still, unread.batch))
        except DivergenceError as error:
            raise self._with_rank(error, unread) from None
        self._reached = replace(
            self._reached,
            loss_sum=self._reached.loss_sum + loss * images,
            images_seen=self._reached.images_seen + images,
        )
        clip_norm = self._step.options.clip_norm
        self._hooks.step(
            Step(
                epoch=unread.place.epoch,
                step=unread.place.step,
                loss=loss,
                lrs=unread.place.lrs,
                momentum=unread.momentum,
                images=images,
                grad_norm=norms_by_group(gradients, self._step.tensors.group_of),
                clip=None if clip_norm is None else clip_factor(gradients.values, clip_norm),
            )
        )
