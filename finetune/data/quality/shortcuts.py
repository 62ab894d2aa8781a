"""Find what a network could tell a class by that has nothing to do with what the images show.

If all photographs of a class are from one camera, have one size or one kind of file that others do not have,
a network may learn the camera: it is right on the validation images, and wrong in use.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from finetune.data.images import Look
from finetune.data.index import ImageIndex, Sample
from finetune.data.quality.finding import Finding, Item

OWN, OTHERS, LEAST = 0.8, 0.05, 10
"""share of a class's images that have a trait, of all others that have it, and images of either to tell"""


class _Trait(NamedTuple):
    name: str
    of: Callable[[str, Look], str]
    """from the name of an image and a look at it; empty where nothing is known"""


_TRAITS = (
    _Trait("size", lambda _, look: f"{look.info.width} × {look.info.height}"),
    _Trait("kind of file", lambda name, _: PurePosixPath(name).suffix.lower()),
    _Trait("colour mode", lambda _, look: look.mode),
    _Trait("camera", lambda _, look: look.camera),
)
_ADVICE = (
    "A network may tell these classes by it, and be wrong on other images. Take images of all classes in the "
    "same way, or make them alike: save them in one size and format."
)


def find_shortcuts(index: ImageIndex, looks: Mapping[str, Look]) -> list[Finding]:
    """Find traits that nearly all images of a class share and hardly any other image has.

    An image with several classes counts for each of them, and for others only if it has not the class.
    """
    samples = [sample for sample in index.samples if sample.name in looks]
    findings = []
    for trait in _TRAITS:
        items = _telling(index, _count(trait, samples, looks), len(samples))
        if items:
            classes = "a class" if len(items) == 1 else f"{len(items)} classes"
            message = f"{classes} with a {trait.name} that other images have not"
            findings.append(Finding("warning", "shortcut", message, _ADVICE, tuple(items)))
    return findings


class _Counts(NamedTuple):
    """How many images have each value of a trait."""

    of_all: Counter[str]
    of_class: dict[int, Counter[str]]
    examples: dict[tuple[int, str], str]
    """the first image of a class with a value"""


def _count(trait: _Trait, samples: Iterable[Sample], looks: Mapping[str, Look]) -> _Counts:
    """Count the values of a trait in one pass over the images, however many classes there are."""
    counts = _Counts(Counter(), defaultdict(Counter), {})
    for sample in samples:
        value = trait.of(sample.name, looks[sample.name])
        counts.of_all[value] += 1
        for target in sample.labels:
            counts.of_class[target][value] += 1
            counts.examples.setdefault((target, value), sample.name)
    return counts


def _telling(index: ImageIndex, counts: _Counts, images: int) -> list[Item]:
    """Return an item for each class that a value of a trait tells from all others."""
    items = []
    for target, of_class in sorted(counts.of_class.items()):
        own = of_class.total()
        others = images - own
        value, number = of_class.most_common(1)[0]
        elsewhere = counts.of_all[value] - number
        telling = number >= OWN * own and elsewhere <= OTHERS * others
        if value and telling and min(own, others) >= LEAST:
            detail = f"{number:,} of {own:,} are {value}, and {elsewhere:,} of {others:,} others"
            items.append(Item((counts.examples[target, value],), f"{index.class_names[target]!r}: {detail}"))
    return items
