"""What makes one epoch's model better than another's."""

import math
from collections.abc import Mapping

from finetune.choices import Monitor

HIGHER_IS_BETTER: Mapping[Monitor, bool] = {
    "val_accuracy": True,
    "val_balanced_accuracy": True,
    "val_macro_f1": True,
    "val_map": True,
    "val_loss": False,
}
"""The direction of every score that can be monitored."""


def is_better(value: float, than: float | None, monitor: Monitor) -> bool:
    """Tell whether a score is better than an earlier one; an equal one is not, and NaN never is.

    Anything but NaN is better than None, which stands for no earlier score, and than NaN.
    """
    if math.isnan(value):
        return False
    if than is None or math.isnan(than):
        return True
    return value > than if HIGHER_IS_BETTER[monitor] else value < than
