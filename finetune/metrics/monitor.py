"""What makes one epoch's model better than another's."""

import math
from collections.abc import Mapping

from finetune.choices import Monitor, OwnMonitor
from finetune.plugins import load_named

HIGHER_IS_BETTER: Mapping[OwnMonitor, bool] = {
    "val_accuracy": True,
    "val_balanced_accuracy": True,
    "val_macro_f1": True,
    "val_map": True,
    "val_loss": False,
}
"""The direction of every score of ours that can be monitored."""

SCORES = tuple(name for name, more in HIGHER_IS_BETTER.items() if more)
"""Those that are no loss, which also have a value for what is no network."""


def prefers_more(monitor: Monitor) -> bool:
    """Return whether a higher value is better; of a package's metric it is, unless it says otherwise.

    Raises:
        ConfigError: it is not ours, and no installed package has it.
    """
    for name, more in HIGHER_IS_BETTER.items():
        if name == monitor:
            return more
    metric, _ = load_named("finetune.metrics", monitor.removeprefix("val_"))
    return bool(getattr(metric, "higher_is_better", True))


def is_better(value: float, than: float | None, monitor: Monitor) -> bool:
    """Tell whether a score is better than an earlier one; an equal one is not, and NaN never is.

    Anything but NaN is better than None, which stands for no earlier score, and than NaN.
    """
    if math.isnan(value):
        return False
    if than is None or math.isnan(than):
        return True
    return value > than if prefers_more(monitor) else value < than
