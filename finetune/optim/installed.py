"""Optimizers of other packages, beside our own: what can be set of one is read from its signature."""

import inspect
from collections.abc import Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any, get_args

from finetune.choices import Decay
from finetune.errors import ConfigError
from finetune.optim.update_rules import UPDATE_RULES, Settings, UpdateRule
from finetune.plugins import Group, call, installed_names, load_named

if TYPE_CHECKING:
    import torch

_GROUP: Group = "finetune.optimizers"
_BOTH_DECAYS = "decoupled_weight_decay"  # torch's own word for the choice, of Adam and others


def update_rule(name: str) -> UpdateRule:
    """Return the rule of an optimizer by its name, ours or that of an installed package.

    Raises:
        ConfigError: a package's optimizer is none, or does not say which weight decay it has.
    """
    ours = next((rule for own, rule in UPDATE_RULES.items() if own == name), None)
    return _rule_of_package(name) if ours is None else ours


def rules_of_packages() -> Iterator[tuple[str, UpdateRule]]:
    """Return the optimizers of all installed packages, by name."""
    yield from ((name, update_rule(name)) for name in installed_names(_GROUP) if name not in UPDATE_RULES)


@cache
def _rule_of_package(name: str) -> UpdateRule:
    kind, origin = load_named(_GROUP, name)
    source = str(origin)
    if not (isinstance(kind, type) and callable(getattr(kind, "step", None))):
        raise ConfigError(
            f"optimizer.name: {name} of {source} is no class of an optimizer.\n"
            "Its entry point has to name a subclass of torch.optim.Optimizer; see docs/extending.md."
        )
    defaults = _defaults(kind)
    first, second = defaults.get("betas", (defaults.get("momentum"), None))
    decays = getattr(kind, "decays", get_args(Decay) if _BOTH_DECAYS in defaults else ())
    if not decays or not set(decays) <= set(get_args(Decay)):
        raise ConfigError(
            f"optimizer.name: {name} of {source} does not say which weight decay it has.\n"
            'Give the class a line such as decays = ("decoupled",) or ("l2",); see docs/extending.md.'
        )
    update = (inspect.getdoc(kind) or "not described").partition("\n")[0]
    return UpdateRule(update, source, Settings(first, second, defaults.get("eps")), tuple(decays))


def build_of_package(
    groups: list[dict[str, Any]], *, name: str, decay: Decay, settings: Settings
) -> "torch.optim.Optimizer":
    """Build the optimizer of another package over parameter groups with a rate and a decay of their own.

    Raises:
        ConfigError: it cannot be built.
    """
    kind, origin = load_named(_GROUP, name)
    defaults, chosen = _defaults(kind), _rule_of_package(name).settings | settings
    known = {
        "betas": (chosen.momentum, chosen.beta2),
        "momentum": chosen.momentum,
        "eps": chosen.eps,
        "lr": groups[0]["lr"],
        _BOTH_DECAYS: decay == "decoupled",
    }
    try:
        taken = {key: known[key] for key in defaults.keys() & known}
        optimizer: torch.optim.Optimizer = kind(groups, **taken)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"optimizer.name: {name} of {origin} cannot be built: {error}\n"
            "Leave out what is set of it, or report it to the package."
        ) from error
    step = optimizer.step
    optimizer.step = lambda *closure: call(origin, partial(step, *closure))  # type: ignore
    return optimizer


def _defaults(kind: type) -> dict[str, Any]:
    """Return what a class takes beside the parameters, with its defaults; None where there is none."""
    taken = list(inspect.signature(kind).parameters.values())[1:]
    return {one.name: None if one.default is one.empty else one.default for one in taken}
