"""A stage's training in miniature: any number of steps from the same start, of which nothing remains."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from finetune.machine.device import LateNumbers
from finetune.machine.divided import rows_of
from finetune.training.events import Batches, EpochBatches
from finetune.training.inference import compute_logits
from finetune.training.step import StepOptions, TrainingStep

# A GPU that is asked for each loss at once stands still meanwhile; a CPU would only take steps in vain.
_STEPS_AHEAD = {"cuda": 2}

Judge = Callable[[Tensor, Tensor], tuple[Tensor, float]]
"""From logits (N, C) and targets (N, …) to the loss of each image (N,), in nats, and the accuracy."""


@dataclass(frozen=True)
class Trial:
    """What a range test and a race train, and on what.

    `module` is the whole model, frozen as the stage wants it, with batches of images; or only its head, with
    batches of the features that a frozen backbone gives.
    """

    module: nn.Module
    train: EpochBatches
    val: Batches
    new_optimizer: Callable[[], torch.optim.Optimizer]
    """the rates that its parameter groups hold are multiples of the head's rate"""
    loss: nn.Module
    judge: Judge
    """how a validation is judged"""
    device: torch.device
    seed: int
    stage: int
    options: StepOptions
    """how each step is taken"""

    def new_step(self) -> TrainingStep:
        """Return what takes the steps of a training that begins now."""
        return TrainingStep(
            self.module,
            self.new_optimizer(),
            loss=self.loss,
            seed=self.seed,
            stage=self.stage,
            options=self.options,
        )

    def steps(
        self, schedule: Iterable[tuple[float, float | None]], *, first_epoch: int = 0
    ) -> Iterator[float]:
        """Take one step for each (rate of the head, momentum); yield the loss of its batch before the step.

        A momentum of None leaves the optimizer without one. Order, augmentation and dropout are those of the
        stage's epochs from `first_epoch` on. On a GPU a loss is read while the next two steps
        are taken; a caller that stops early sees the same losses, and these steps were in vain.
        """
        step, unread = self.new_step(), deque[LateNumbers]()
        steps = zip(schedule, self._batches(first_epoch), strict=False)
        for (rate, momentum), (epoch, number, batch) in steps:
            *inputs, targets = (part.to(self.device, non_blocking=True) for part in batch)
            rates = [rate * multiple for multiple in step.group_rates]
            outcome = step(inputs, targets, epoch=epoch, batch=number, rates=rates, momentum=momentum)
            unread.append(LateNumbers(outcome.loss[None]))
            if len(unread) > _STEPS_AHEAD.get(self.device.type, 0):
                yield unread.popleft().read()[0]
        for late in unread:
            yield late.read()[0]

    def validate(self) -> tuple[Tensor, Tensor]:
        """Return the logits (N, C) and targets of the validation images, on the CPU."""
        return compute_logits(self.module, self.val, device=self.device)

    def _batches(self, first_epoch: int) -> Iterator[tuple[int, int, tuple[Tensor, ...]]]:
        """Return (epoch, number of the batch in it, batch) without end."""
        epoch = first_epoch
        while True:
            self.train.sampler.start_epoch(self.stage, epoch)
            for number, batch in enumerate(self.train):
                yield epoch, number, batch
            epoch += 1


@contextmanager
def no_trace(module: nn.Module) -> Iterator[None]:
    """Put everything back at the end, also after an error or Ctrl-C: as if what is inside had never run.

    That is every parameter and buffer bit for bit, no gradients where there were none, the training mode of
    every layer, and the random states of torch, NumPy and Python.
    """
    tensors = [rows_of(tensor) for tensor in (*module.parameters(), *module.buffers())]
    before = [tensor.detach().clone() for tensor in tensors]
    gradients = [parameter.grad for parameter in module.parameters()]
    module.zero_grad(set_to_none=True)
    modes = [(layer, layer.training) for layer in module.modules()]
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    device_state = _random_state(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for layer, mode in modes:
            layer.training = mode
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if device.type == "cuda":
            torch.cuda.set_rng_state(device_state, device)
        elif device.type == "mps":
            torch.mps.set_rng_state(device_state)


def _random_state(device: torch.device) -> Tensor:
    """Return the random state of the device in use; one that is not in use is not to be woken up."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()
