"""Heuristics of other packages: each reads a rate from a curve, or refuses it with a reason."""

import math

from finetune.errors import ConfigError
from finetune.plugins import call, load_named


def suggest_by_package(name: str, curve: object) -> tuple[float | None, str]:
    """Ask the heuristic of a package for the rate of a curve, as `Curve` has it.

    Returns:
        The rate, or None and the reason why there is none: the text of the ValueError that it has raised.

    Raises:
        ConfigError: no installed package has it, it fails, or it answers with anything but a rate.
    """
    heuristic, origin = load_named("finetune.heuristics", name)

    def rate_or_reason() -> tuple[object, str]:
        try:
            return heuristic(curve), ""
        except ValueError as error:
            return None, f"{error}" or "no reason is said"

    rate, reason = call(origin, rate_or_reason)
    if reason:
        return None, reason
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise ConfigError(
            f"lr_finder.pick: {name} of {origin} answers {rate!r}, which is no rate.\n"
            "It has to return a number above 0, or to raise ValueError with the reason why there is none."
        )
    return float(rate), ""
