"""Decoupled weight decay for those of torch's optimizers that have only l2."""

from collections.abc import Callable
from typing import Any

import torch

from finetune.optim.eager import EagerAdadelta, EagerAdagrad, EagerSGD
from finetune.optim.multi_tensor import evaluate, learning, shrink


class DecoupledDecay(torch.optim.Optimizer):
    """Decay the weights before the step, w ← (1 − lr·wd)·w, and keep the decay out of the gradients.

    Put it before one of torch's optimizers among the bases of a class (Loshchilov and Hutter, 2019).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Decay the weights that have a gradient, then take the other base's step without decay."""
        loss = evaluate(closure)
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                parameters = learning(group)
                if parameters and group["weight_decay"]:
                    shrink(parameters, lr=group["lr"], weight_decay=group["weight_decay"])
                group["weight_decay"] = 0.0
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss


class DecoupledSGD(DecoupledDecay, EagerSGD):
    """torch's SGD with decoupled weight decay."""


class DecoupledAdagrad(DecoupledDecay, EagerAdagrad):
    """torch's Adagrad with decoupled weight decay."""


class DecoupledAdadelta(DecoupledDecay, EagerAdadelta):
    """torch's Adadelta with decoupled weight decay."""
