"""Find what a network could tell a class by that has nothing to do with what the images show.

If all photographs of a class are from one camera, have one size or one kind of file that others do not have,
a network may learn the camera: it is right on the validation images, and wrong in use.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import splitext
from typing import NamedTuple

from finetune.data.images import ImageInfo, Look
from finetune.data.index import ImageIndex, Sample
from finetune.data.quality.finding import Finding, Item

OWN, OTHERS, LEAST = 0.8, 0.05, 10
"""share of a class's images that have a trait, of all others that have it, and images of either to tell"""

# From the name of an image and what is known of it; empty where nothing is.
_OF_FILES: dict[str, Callable[[str, ImageInfo], str]] = {
    "size": lambda _, info: f"{info.width} × {info.height}",
    "kind of file": lambda name, _: splitext(name)[1].lower(),
}
_OF_LOOKS: dict[str, Callable[[Look], str]] = {
    "colour mode": lambda look: look.mode,
    "camera": lambda look: look.camera,
}
_ADVICE = (
    "A network may tell these classes by it, and be wrong on other images. Take images of all classes in the "
    "same way, or make them alike: save them in one size and format."
)


def find_shortcuts(index: ImageIndex, looks: Mapping[str, Look]) -> list[Finding]:
    """Find traits that nearly all images of a class share and hardly any other image has.

    An image with several classes counts for each of them, and for others only if it has not the class.
    """
    samples = [sample for sample in index.samples if sample.name in looks]
    seen = [looks[sample.name] for sample in samples]
    found = list(_in_files(index, samples, [look.info for look in seen]))
    for trait, of in _OF_LOOKS.items():
        found += _in_trait(trait, index, samples, list(map(of, seen)))
    return found


def shortcut_remarks(
    index: ImageIndex, samples: Sequence[Sample], infos: Sequence[ImageInfo]
) -> Iterator[str]:
    """Yield a line for each such trait that shows without a look at the pixels: a size, or a kind of file."""
    for found in _in_files(index, samples, infos):
        example = found.items[0].detail
        yield f"{found.message}: {example}; a network may learn that alone (finetune check shows them)"


def _in_files(index: ImageIndex, samples: Sequence[Sample], infos: Sequence[ImageInfo]) -> Iterator[Finding]:
    for trait, of in _OF_FILES.items():
        values = [of(sample.name, info) for sample, info in zip(samples, infos, strict=True)]
        yield from _in_trait(trait, index, samples, values)


def _in_trait(
    trait: str, index: ImageIndex, samples: Sequence[Sample], values: Sequence[str]
) -> Iterator[Finding]:
    """Yield a finding if a value of this trait tells any class from all others."""
    items = _telling(index, _count(samples, values), len(samples))
    if items:
        classes = "a class" if len(items) == 1 else f"{len(items)} classes"
        message = f"{classes} with a {trait} that other images have not"
        yield Finding("warning", "shortcut", message, _ADVICE, tuple(items))


class _Counts(NamedTuple):
    """How many images have each value of a trait."""

    of_all: Counter[str]
    of_class: dict[int, Counter[str]]
    examples: dict[tuple[int, str], str]
    """the first image of a class with a value"""


def _count(samples: Sequence[Sample], values: Sequence[str]) -> _Counts:
    """Count the values of a trait in one pass over the images, however many classes there are."""
    counts = _Counts(Counter(values), defaultdict(Counter), {})
    for sample, value in zip(samples, values, strict=True):
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
