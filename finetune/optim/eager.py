"""torch's optimizers without torch's compiler, whose import takes as long as that of torch itself.

torch's own tell the compiler, at every step and with every parameter group, that there is nothing here to
compile, and import it for that. Training here never compiles an optimizer.
"""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam


class EagerOptimizer(Optimizer):
    """Do what the next base of a class does, to the same bits, without what the compiler would be told."""

    add_param_group = unwrap(Optimizer.add_param_group)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step with the gradients that the parameters hold."""
        return unwrap(super().step.__func__)(self, closure)  # type: ignore[attr-defined]


class EagerSGD(EagerOptimizer, SGD):
    """torch's SGD."""


class EagerAdam(EagerOptimizer, Adam):
    """torch's Adam."""


class EagerAdamW(EagerOptimizer, AdamW):
    """torch's AdamW."""


class EagerNAdam(EagerOptimizer, NAdam):
    """torch's NAdam."""


class EagerRAdam(EagerOptimizer, RAdam):
    """torch's RAdam."""


class EagerAdagrad(EagerOptimizer, Adagrad):
    """torch's Adagrad."""


class EagerAdadelta(EagerOptimizer, Adadelta):
    """torch's Adadelta."""
