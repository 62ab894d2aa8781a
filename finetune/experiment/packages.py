"""What a training takes from other packages, by the names in its config."""

from typing import get_args

from finetune.choices import OwnPick
from finetune.config.config import Config
from finetune.metrics.installed import PREFIX, of_packages
from finetune.model.architecture import TIMM
from finetune.model.timm_catalogue import package_of_architecture
from finetune.optim.update_rules import UPDATE_RULES
from finetune.plugins import FromPackage, Group, load_named


def taken_from_packages(config: Config) -> list[FromPackage]:
    """Return what is not ours of the optimizer, the heuristic, the metrics and the network of a config.

    Raises:
        ConfigError: a package is broken.
    """
    named: list[tuple[Group, str]] = []
    if config.optimizer.name not in UPDATE_RULES:
        named.append(("finetune.optimizers", config.optimizer.name))
    if config.lr_finder.pick not in get_args(OwnPick):
        named.append(("finetune.heuristics", config.lr_finder.pick))
    for monitor in of_packages((config.monitor, config.early_stopping.metric)):
        named.append(("finetune.metrics", monitor.removeprefix(PREFIX)))
    found = [load_named(*name)[1] for name in named]
    network = package_of_architecture(config.model.arch) if config.model.arch.startswith(TIMM) else None
    return found if network is None else [*found, network]
