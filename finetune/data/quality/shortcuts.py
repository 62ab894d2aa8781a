"""Find what a network could tell a class by that has nothing to do with what the images show.

If all photographs of a class are from one camera, have one size or one kind of file that others do not have,
a network may learn the camera: it is right on the validation images, and wrong in use.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

from finetune.data.images import ImageInfo, Look
from finetune.data.index import ImageIndex, Sample
from finetune.data.quality.finding import Finding, Item

OWN, OTHERS, LEAST = 0.8, 0.05, 10
"""share of a class's images that have a trait, of all others that have it, and images of either to tell"""

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
    found += _in_trait("colour mode", index, samples, [look.mode for look in seen])
    found += _in_trait("camera", index, samples, [look.camera for look in seen])
    return found


def shortcut_remarks(
    index: ImageIndex, samples: Sequence[Sample], infos: Sequence[ImageInfo]
) -> Iterator[str]:
    """Yield a line for each such trait that shows without a look at the pixels: a size, or a kind of file."""
    for found in _in_files(index, samples, infos):
        example = found.items[0].detail
        yield f"{found.message}: {example}; a network may learn that alone (finetune check shows them)"


def _in_files(index: ImageIndex, samples: Sequence[Sample], infos: Sequence[ImageInfo]) -> Iterator[Finding]:
    """Yield what sizes and kinds of file tell, of very many images within a second."""
    yield from _in_trait("size", index, samples, [info[:2] for info in infos])
    names = [sample.name for sample in samples]
    kinds = [name[name.rfind(".") :].lower() if "." in name else "" for name in names]
    yield from _in_trait("kind of file", index, samples, kinds)


def _in_trait(
    trait: str, index: ImageIndex, samples: Sequence[Sample], values: Sequence[Hashable]
) -> Iterator[Finding]:
    """Yield a finding if a value of this trait tells any class from all others."""
    telling = list(_telling(samples, values))
    if not telling:
        return
    examples = {
        (target, value): sample.name
        for sample, value in zip(reversed(samples), reversed(values), strict=True)
        for target in sample.labels
    }
    items = [
        Item((examples[target, value],), f"{index.class_names[target]!r}: {detail}")
        for target, value, detail in telling
    ]
    classes = "a class" if len(items) == 1 else f"{len(items)} classes"
    yield Finding(
        "warning", "shortcut", f"{classes} with a {trait} that other images have not", _ADVICE, tuple(items)
    )


def _telling(samples: Sequence[Sample], values: Sequence[Hashable]) -> Iterator[tuple[int, Hashable, str]]:
    """Yield each class that a value of a trait tells from all others, that value, and the numbers."""
    of_all = Counter(values)
    of_class: defaultdict[int, Counter[Hashable]] = defaultdict(Counter)
    # There are few kinds of images, however many images and classes there are.
    kinds = Counter(zip([sample.labels for sample in samples], values, strict=True))
    for (labels, value), number in kinds.items():
        for target in labels:
            of_class[target][value] += number
    for target, of_this in sorted(of_class.items()):
        own = of_this.total()
        others = len(samples) - own
        value, number = of_this.most_common(1)[0]
        elsewhere = of_all[value] - number
        if value and min(own, others) >= LEAST and number >= OWN * own and elsewhere <= OTHERS * others:
            shown = " × ".join(map(str, value)) if isinstance(value, tuple) else value
            yield target, value, f"{number:,} of {own:,} are {shown}, and {elsewhere:,} of {others:,} others"
