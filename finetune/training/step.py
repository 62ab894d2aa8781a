"""One step of training: the same for a stage, for a range test and for the trainings of a race."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from finetune.data.loading.share import BatchShare
from finetune.machine.divided import which_rows
from finetune.machine.ranks import ALONE, Ranks
from finetune.optim.schedule import set_rates
from finetune.seed import derive, seed_for
from finetune.training.compiled import compiled
from finetune.training.mix import Mix
from finetune.training.norms import StageTensors
from finetune.training.whole_batch import as_of_whole_batch


@dataclass(frozen=True)
class StepOptions:
    """How a step is taken; stage, range test and race have the same."""

    clip_norm: float | None = None
    """The largest norm that the gradient of all that learns may have; None for any."""
    batch_size: int | None = None
    """The most images that are gone through at once. The gradients of the parts of a larger batch are added
    up before the optimizer's step, as if it had been gone through whole. None for all of them."""
    mix: Mix | None = None
    """How images that are gone through at once are mixed, where there are images and nothing beside them."""
    share: BatchShare | None = None
    """The rows that this rank goes through, of those in a batch; None for all of them."""
    compiled: bool = False
    """Whether torch compiles the forward pass, and with it the backward pass."""


@dataclass(frozen=True)
class StepOutcome:
    """What a step has measured; the device may still be computing the numbers."""

    loss: Tensor
    """Mean loss of the batch before the step, (), in nats, without its graph."""
    gradients: list[str]
    """Names of the parameters that had a gradient, in the order of the model."""
    gradient_norms: Tensor
    """L2 norm of each, before any clipping, (n,)."""
    images: int
    """Of the whole batch."""
    own_loss: Tensor
    """What the rows of this rank add to the loss, ()."""


class TrainingStep:
    """Takes the steps of one training: forward, loss, backward, clipping, optimizer, in this order."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        loss: nn.Module,
        seed: int,
        stage: int,
        options: StepOptions | None = None,
    ) -> None:
        """Put a module that is frozen as it should be into training mode.

        Args:
            module: from the inputs of a batch to what the loss takes.
            optimizer: over what learns of it; what its groups hold as rate now stays in `group_rates`.
            loss: from outputs and targets to a number.
            seed: the seed of the experiment.
            stage: number of the stage, from 0.
            options: how each step is taken; by default whole, and without clipping.
        """
        module.train()  # first: whether the running statistics move depends on it
        self.module, self.optimizer, self.loss = module, optimizer, loss
        self.seed, self.stage, self.options = seed, stage, options or StepOptions()
        self._forward = compiled(module) if self.options.compiled else module
        share = self.options.share
        self.tensors = StageTensors(module, optimizer, ALONE if share is None else share.ranks)
        self.group_rates = tuple(float(group["lr"]) for group in optimizer.param_groups)

    def __call__(
        self,
        inputs: Sequence[Tensor],
        targets: Tensor,
        *,
        epoch: int,
        batch: int,
        rates: Sequence[float],
        momentum: float | None,
    ) -> StepOutcome:
        """Take one step; its mixing and dropout are functions of the stage, the epoch and the batch.

        Args:
            inputs: what the module takes, images (N, 3, H, W) or features (N, D) first, on its device; those
                of this rank, where several share the batch.
            targets: (N, …), on the same device.
            epoch: number of the epoch in the stage, from 0.
            batch: number of the batch in the epoch, from 0.
            rates: learning rate of each parameter group.
            momentum: of all groups; None leaves it alone.
        """
        set_rates(self.optimizer, rates, momentum)
        seed_for(derive(self.seed, "dropout", self.stage, epoch, batch), targets.device)
        share = self.options.share
        images = len(targets) if share is None else share.images
        own = self._backward(inputs, targets, images, position=(epoch, batch))
        gradients = self.tensors.gradients()
        loss = own if share is None else _added_up(share.ranks, own, [tensor for _, tensor in gradients])
        norms = self.tensors.norms(gradients)
        if self.options.clip_norm is not None:
            learning = [parameter for _, parameter in self.tensors.learning]
            clip_grads_with_norm_(learning, self.options.clip_norm, torch.linalg.vector_norm(norms))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.tensors.clear_gradients()
        return StepOutcome(loss, [name for name, _ in gradients], norms, images, own)

    def _backward(
        self, inputs: Sequence[Tensor], targets: Tensor, images: int, *, position: tuple[int, int]
    ) -> Tensor:
        """Add up the gradients of the parts of a batch, by their share of its images; return its mean loss.

        The activations of one part are kept at a time. `images` is how many the batch has, of which these may
        be some.
        """
        share = self.options.share
        number = 1 if self.options.batch_size is None else math.ceil(images / self.options.batch_size)
        parts = zip(*(tensor.tensor_split(number) for tensor in (*inputs, targets)), strict=True)
        whole: Tensor | None = None
        for place, (*part, wanted) in enumerate(parts):
            if self.options.mix is not None:
                seed = derive(self.seed, "mix", self.stage, *position, place)
                part[0], wanted = self.options.mix(part[0], wanted, seed)
            if share is not None and share.with_partner:
                *part, wanted = (one[1:] for one in (*part, wanted))
            with as_of_whole_batch(share):
                loss: Tensor = self.loss(self._forward(*part), wanted)
            if len(wanted) < images:
                loss = loss * (len(wanted) / images)
            loss.backward()  # type: ignore[no-untyped-call]
            whole = loss.detach() if whole is None else whole + loss.detach()
        assert whole is not None
        return whole


def _added_up(ranks: Ranks, loss: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """Add up gradients over the ranks, in place, and return the sum of their losses.

    Those of divided weights are sums already: torch has added them up on the way back.
    """
    gradients = [gradient for gradient in gradients if which_rows(gradient) is None]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), loss.reshape(1)])
    ranks.add_up(flat)
    *summed, whole = torch.split(flat, [*(gradient.numel() for gradient in gradients), 1])
    with torch.no_grad():
        views = [one.view(gradient.shape) for one, gradient in zip(summed, gradients, strict=True)]
        torch._foreach_copy_(list(gradients), views)
    return whole[0]
