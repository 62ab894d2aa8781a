"""Optimizers, and the parameter groups that give each layer group its own rate and decay."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from finetune.optim.momentum import Momentum, Nesterov

OptimizerName = Literal["adam", "sgd", "momentum", "nesterov"]
Decay = Literal["decoupled", "l2"]

ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8


def build_optimizer(
    param_groups: Sequence[dict[str, Any]], *, name: OptimizerName, decay: Decay
) -> torch.optim.Optimizer:
    """Build a multi-tensor optimizer over parameter groups that hold `params`, `lr` and `weight_decay`.

    `adam` is Adam (Kingma and Ba, 2015), with decoupled decay AdamW (Loshchilov and Hutter, 2019). `sgd` is
    plain gradient descent, for which both kinds of decay are the same update: w ← (1 − lr·wd)·w − lr·g.
    `momentum` and `nesterov` average the gradients. Where torch computes the same, torch's own is taken.
    """
    groups = list(param_groups)
    decoupled = decay == "decoupled"
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.0, fused=True)
    if name == "momentum":
        return Momentum(groups, decoupled_weight_decay=decoupled)
    if name == "nesterov":
        return Nesterov(groups, decoupled_weight_decay=decoupled)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    return kind(groups, betas=ADAM_BETAS, eps=ADAM_EPS, fused=True)


def has_momentum(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether the optimizer has a momentum for the one-cycle schedule to move."""
    defaults = optimizer.defaults
    return "betas" in defaults or bool(defaults.get("momentum"))
