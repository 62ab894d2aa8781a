"""Find what a network could tell a class by that has nothing to do with what the images show.

If all photographs of a class are from one camera, have one size or one kind of file that others do not have,
a network may learn the camera: it is right on the validation images, and wrong in use.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from finetune.data.images import Look
from finetune.data.index import ImageIndex
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
        values = {sample.name: trait.of(sample.name, looks[sample.name]) for sample in samples}
        all_with = Counter(values.values())
        items = []
        for target, class_name in enumerate(index.class_names):
            own = [sample.name for sample in samples if target in sample.labels]
            others = len(samples) - len(own)
            if min(len(own), others) < LEAST:
                continue
            value, number = Counter(values[name] for name in own).most_common(1)[0]
            elsewhere = all_with[value] - number
            if value and number >= OWN * len(own) and elsewhere <= OTHERS * others:
                detail = f"{number:,} of {len(own):,} are {value}, and {elsewhere:,} of {others:,} others"
                example = next(name for name in own if values[name] == value)
                items.append(Item((example,), f"{class_name!r}: {detail}"))
        if items:
            classes = "a class" if len(items) == 1 else f"{len(items)} classes"
            message = f"{classes} with a {trait.name} that other images have not"
            findings.append(Finding("warning", "shortcut", message, _ADVICE, tuple(items)))
    return findings
