"""Find images that are dark, bright, empty, blurred or small beside the others of their data set.

The limits lie between photographs and the same ones spoiled on purpose, see benchmarks/poor_images.py. Where
many images of a set are beyond one of them, it is the nature of the set, and nothing is said.
"""

import math
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

from finetune.data.images import Look
from finetune.data.quality.finding import Finding, Item

DARK, BRIGHT, EMPTY, BLURRED, SMALL = 0.32, 0.9, 1.0, 0.12, 0.25
_EMPTY_SHARE = 1 / 7  # of the usual information, where that is less: whole drawings have 2 bits a pixel
_MOST = 0.1  # share of all images; of more it is their nature


class _Usual(NamedTuple):
    """Medians of a data set."""

    side: float
    information: float


class _Kind(NamedTuple):
    name: str
    what: str
    is_so: Callable[[Look, _Usual], bool]
    detail: Callable[[Look], str]
    advice: str


_TELL_NOTHING = "Remove those that do not show their class: they can only be learned by heart."

_KINDS = (
    _Kind(
        "dark",
        "nearly black",
        lambda look, _: look.appearance.brightest < DARK,
        lambda look: f"99% of it below {look.appearance.brightest:.0%} of full brightness",
        _TELL_NOTHING,
    ),
    _Kind(
        "bright",
        "nearly white",
        lambda look, _: look.appearance.darkest > BRIGHT,
        lambda look: f"95% of it above {look.appearance.darkest:.0%} of full brightness",
        _TELL_NOTHING,
    ),
    _Kind(
        "empty",
        "nearly without detail",
        lambda look, usual: _information(look) < min(EMPTY, _EMPTY_SHARE * usual.information),
        lambda look: f"{look.appearance.information:.1f} bits a pixel",
        _TELL_NOTHING,
    ),
    _Kind(
        "blurred",
        "blurred",
        lambda look, _: look.appearance.sharpness < BLURRED,
        lambda look: f"sharpness {look.appearance.sharpness:.2f}; sharp photographs have more than 0.2",
        "Keep those that you would recognise; if pictures in use are sharp, remove the others.",
    ),
    _Kind(
        "small",
        "much smaller than the others",
        lambda look, usual: _side(look) < SMALL * usual.side,
        lambda look: f"{look.info.width} × {look.info.height}",
        "Remove thumbnails and icons, or put the originals in their place.",
    ),
)


def find_poor(looks: Mapping[str, Look]) -> list[Finding]:
    """Find poor images; one that is so in several ways is told of once."""
    if not looks:
        return []
    usual = _Usual(median(map(_side, looks.values())), median(map(_information, looks.values())))
    findings, told = [], set[str]()
    for kind in _KINDS:
        names = [name for name, look in looks.items() if kind.is_so(look, usual)]
        items = tuple(Item((name,), kind.detail(looks[name])) for name in names if name not in told)
        if items and len(names) <= max(_MOST * len(looks), 1):
            told.update(names)
            findings.append(Finding("warning", kind.name, f"{kind.what}: {len(items):,}", kind.advice, items))
    return findings


def _side(look: Look) -> float:
    """Return the side of a square of as many pixels."""
    return math.sqrt(look.info.width * look.info.height)


def _information(look: Look) -> float:
    return look.appearance.information
