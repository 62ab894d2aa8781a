"""Scores of other packages, from probabilities and targets: what `monitor: val_NAME` asks for."""

import math
from collections.abc import Iterable

from torch import Tensor

from finetune.errors import ConfigError
from finetune.metrics.monitor import HIGHER_IS_BETTER
from finetune.plugins import Group, call, load_named

PREFIX = "val_"
"""stands before the name of a metric where a config monitors it"""

_GROUP: Group = "finetune.metrics"


def of_packages(monitors: Iterable[str | None]) -> tuple[str, ...]:
    """Return which of some monitors are the metrics of packages, each once."""
    return tuple(dict.fromkeys(one for one in monitors if one and one not in ("auto", *HIGHER_IS_BETTER)))


def score_of_package(monitor: str, probabilities: Tensor, targets: Tensor) -> float:
    """Compute the metric of a package.

    Args:
        monitor: `val_` and its name.
        probabilities: of each class, (N, C), float64, on the CPU.
        targets: classes (N,), or 0 and 1 for each class (N, C).

    Raises:
        ConfigError: no installed package has it, it fails, or what it returns is no number.
    """
    metric, origin = load_named(_GROUP, monitor.removeprefix(PREFIX))
    score = call(origin, lambda: metric(probabilities, targets))
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            f"monitor: {origin.name} of {origin} answers {score!r}, which is no finite number.\n"
            "Repair the metric, or monitor another score."
        )
    return value
