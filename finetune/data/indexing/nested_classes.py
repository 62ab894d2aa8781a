"""Ask what folders are that all hold folders of the same names: `a/ants a/bees b/ants b/bees`."""

from collections import Counter, defaultdict

from finetune.choices import split_of
from finetune.data.indexing.part import Part
from finetune.errors import DataError
from finetune.text import printable, quoted


def refuse_nested_classes(part: Part) -> None:
    """Refuse class folders that look like sites or splits of the classes one folder further down.

    They do where none holds an image itself, and each holds one of at least two folders that others hold too.
    One name that all share, such as `images`, is no class.

    Raises:
        DataError: the folders of a part can be read in two ways.
    """
    inner: dict[str, set[str]] = defaultdict(set)
    beginning = len(part.folder) + 1 if part.folder else 0
    for name, label in part.labels.items():
        below = name[beginning:].split("/")[1:]
        if len(below) < 2:
            return
        inner[label].add(below[0])
    numbers = Counter(name for names in inner.values() for name in names)
    shared = sorted(name for name, number in numbers.items() if number > 1)
    if len(inner) < 2 or len(shared) < 2 or not all(names & set(shared) for names in inner.values()):
        return
    outer = sorted(inner)
    if all(map(split_of, shared)):
        example = f"{outer[0]}/{shared[0]}"
        raise DataError(
            f"{part}: the folders {quoted(outer)} all hold {quoted(shared)}, which are names of splits.\n"
            f"Put the splits above the classes ({shared[0]}/{outer[0]} for {example}), or write data.layout: "
            "classes to take the images of all splits together."
        )
    first, second, *_ = sorted(outer, key=lambda name: "train" not in name.lower())
    splits = f"\ndata.layout: {{train: {printable(first)}, val: {printable(second)}}}      they are splits"
    splits = "" if part.folder else splits  # in a folder of training images there are none
    raise DataError(
        f"{part}: the folders {quoted(outer)} all hold {quoted(shared)}. Which are the classes?\n"
        f"data.layout: classes      {quoted(outer)} are classes, or classes/groups if {quoted(shared)} are "
        "patients or the like\n"
        f"data.layout: groups       {quoted(shared)} are classes; {quoted(outer)} are sites, patients or the "
        f"like, and each stays on one side of the split{splits}"
    )
