"""Optimizers, built over parameter groups in which each layer group has its own rate and decay."""

from collections.abc import Sequence
from typing import Any

import torch

from finetune.choices import Decay
from finetune.machine.ranks import ALONE, Ranks
from finetune.optim.adaptive import Lamb, RMSprop
from finetune.optim.decoupled import DecoupledAdadelta, DecoupledAdagrad, DecoupledSGD
from finetune.optim.eager import (
    EagerAdadelta,
    EagerAdagrad,
    EagerAdam,
    EagerAdamW,
    EagerNAdam,
    EagerRAdam,
    EagerSGD,
)
from finetune.optim.installed import build_of_package, update_rule
from finetune.optim.momentum import Lion, Momentum, Nesterov
from finetune.optim.ranger import Ranger
from finetune.optim.update_rules import Settings

NO_SETTINGS = Settings()

_ADAMS: dict[str, type[EagerNAdam | EagerRAdam]] = {
    "nadam": EagerNAdam,
    "radam": EagerRAdam,
    "ranger": Ranger,
}


def build_optimizer(
    param_groups: Sequence[dict[str, Any]],
    *,
    name: str,
    decay: Decay,
    settings: Settings = NO_SETTINGS,
    ranks: Ranks = ALONE,
) -> torch.optim.Optimizer:
    """Build a multi-tensor optimizer over parameter groups that hold `params`, `lr` and `weight_decay`.

    Where torch computes what `UPDATE_RULES` says, torch's own is built, fused where there is such a path.
    Settings that are None are the optimizer's own defaults. Of the parameters each of `ranks` may hold rows.
    """
    chosen = update_rule(name).settings | settings
    momentum, beta2, eps = (value or 0.0 for value in (chosen.momentum, chosen.beta2, chosen.eps))
    betas, decoupled, groups = (momentum, beta2), decay == "decoupled", list(param_groups)
    match name:
        case "sgd":  # both kinds of decay are one: w − lr·(g + wd·w) = (1 − lr·wd)·w − lr·g
            return EagerSGD(groups, fused=True)
        case "momentum" | "nesterov":
            classic = chosen.form == "classic"
            return _build_momentum(groups, name=name, momentum=momentum, classic=classic, decoupled=decoupled)
        case "adagrad":
            return _build_adagrad(groups, eps=eps, decoupled=decoupled)
        case "rmsprop":
            return RMSprop(groups, beta2=beta2, eps=eps, decoupled_weight_decay=decoupled)
        case "adadelta":
            adadelta = DecoupledAdadelta if decoupled else EagerAdadelta
            return adadelta(groups, rho=beta2, eps=eps, foreach=True)
        case "adam" | "adamw":
            adam = EagerAdamW if decoupled or name == "adamw" else EagerAdam
            return adam(groups, betas=betas, eps=eps, fused=True)
        case "nadam" | "radam" | "ranger":
            return _ADAMS[name](groups, betas=betas, eps=eps, decoupled_weight_decay=decoupled, foreach=True)
        case "lamb":
            return Lamb(groups, betas=betas, eps=eps, decoupled_weight_decay=decoupled, ranks=ranks)
        case "lion":
            return Lion(groups, betas=betas, decoupled_weight_decay=decoupled)
        case _:
            return build_of_package(groups, name=name, decay=decay, settings=settings)


def _build_momentum(
    groups: list[dict[str, Any]], *, name: str, momentum: float, classic: bool, decoupled: bool
) -> torch.optim.Optimizer:
    """Build torch's SGD, whose velocity is a sum of gradients, or what keeps a mean of them."""
    if classic:
        sgd = DecoupledSGD if decoupled else EagerSGD
        return sgd(groups, momentum=momentum, nesterov=name == "nesterov", fused=True)
    mean = Momentum if name == "momentum" else Nesterov
    return mean(groups, momentum=momentum, decoupled_weight_decay=decoupled)


def _build_adagrad(groups: list[dict[str, Any]], *, eps: float, decoupled: bool) -> torch.optim.Optimizer:
    """Build torch's Adagrad with ε where it belongs: in the sum, from the start, and so below the root.

    torch itself adds its `eps` to the root.
    """
    kind = DecoupledAdagrad if decoupled else EagerAdagrad
    on_cpu = all(parameter.is_cpu for group in groups for parameter in group["params"])
    return kind(groups, initial_accumulator_value=eps, eps=0.0, fused=on_cpu, foreach=not on_cpu)


def has_momentum(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the optimizer has a momentum for the one-cycle schedule to move."""
    defaults = optimizer.defaults
    return "betas" in defaults or bool(defaults.get("momentum"))
