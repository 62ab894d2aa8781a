"""What a request may set beside its images."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from finetune.commands.serve.limits import RefusedError, ServeOptions
from finetune.text import quoted

_KEYS = ("top_k", "unsure", "explain")
_TRUTHS = {"true": True, "1": True, "false": False, "0": False, "": False}


@dataclass(frozen=True)
class Settings:
    """How the answers to a request are."""

    top_k: int
    """classes of each answer"""
    unsure: float | None
    """certainty below which an answer is marked, 0–1"""
    explain: bool = False
    """whether to say where the image holds what speaks for its most probable class"""


def read_settings(given: Mapping[str, Any], options: ServeOptions, classes: int) -> Settings:
    """Return the settings of a request, from its address and its body; the rest is as the server was started.

    Raises:
        RefusedError: a setting that there is not, or that cannot be.
    """
    for key in given:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {quoted(_KEYS)} and 'metadata'"
            raise RefusedError(400, f"no setting {quoted([key])}{hint}")
    return Settings(
        top_k=min(classes, int(_number(given, "top_k", 1, 1e9, options.top_k) or 1)),
        unsure=_number(given, "unsure", 0, 1, options.unsure),
        explain=_truth(given.get("explain", False)),
    )


def _truth(value: Any) -> bool:
    truth = _TRUTHS.get(str(value).lower()) if isinstance(value, str | bool | int) else None
    if truth is None:
        raise RefusedError(400, "explain: expected true or false")
    return truth


def _number(
    given: Mapping[str, Any], key: str, least: float, most: float, otherwise: float | None
) -> float | None:
    value = given.get(key)
    if value is None or value == "":
        return otherwise
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    whole = key != "top_k" or number == number // 1
    if not (least <= number <= most and whole):
        expected = "a whole number from 1" if key == "top_k" else f"a number from {least:g} to {most:g}"
        raise RefusedError(400, f"{key}: expected {expected}")
    return number
