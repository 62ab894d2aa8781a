"""Ask about folders that are hardly classes: parts of a collection, annotations beside images, a second copy.

What publishers put into archives looks like class folders: `images_001 images_002`, `images annotations`,
`patient1 patient2`. A model that tells these apart is trained without an error, and is of no use.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from finetune.data.indexing.part import Part
from finetune.data.indexing.set_aside import ANNOTATIONS, COLLECTIONS, plain_folder
from finetune.data.indexing.table_beside import tables_hint
from finetune.data.table.columns import numbered_alike
from finetune.errors import DataError
from finetune.text import counted, printable, quoted


def refuse_doubtful_classes(part: Part) -> None:
    """Refuse class folders that are called or nested as classes hardly are.

    Raises:
        DataError: they are; the message names what settles it.
    """
    names = [name for name, number in part.counts.items() if number]
    for doubt in (_numbered(names), _annotated(names)):
        if doubt is not None:
            raise _asked(part, *doubt)
    inner = _inner_folders(part)
    _refuse_copy(part, names, inner)
    _refuse_two_levels(part, names, inner)


def _numbered(names: Sequence[str]) -> tuple[str, str | None] | None:
    """Return what is said of folders such as `images_001` and `images_002`."""
    numbered = numbered_alike(names)
    return (
        (f"{quoted(numbered)} differ in a number alone, as parts of one whole do", None) if numbered else None
    )


def _annotated(names: Collection[str]) -> tuple[str, str | None] | None:
    """Return what is said of folders such as `images` and `annotations`, and the folder that is meant."""
    collections = [name for name in names if plain_folder(name) in COLLECTIONS]
    beside = [name for name in names if plain_folder(name) in ANNOTATIONS]
    if not collections or (not beside and len(collections) < max(2, len(names))):
        return None
    what = f"{quoted([*collections, *beside])} are called like images and what belongs to them"
    return what, collections[0] if len(collections) == 1 else None


def _asked(part: Part, what: str, meant: str | None) -> DataError:
    folder = part.root / part.folder
    alone = f"\ndata.path: {printable(str(folder / meant))}      that folder alone" if meant else ""
    hint = tables_hint(folder) or (tables_hint(part.root) if part.folder else "")
    return DataError(
        f"{part}: the folders {what}. Are they classes?\ndata.layout: classes      they are{alone}{hint}"
    )


def _inner_folders(part: Part) -> Mapping[str, frozenset[str]]:
    """Return the folders that hold images in each class folder that holds none itself."""
    inner: defaultdict[str, set[str]] = defaultdict(set)
    for within, label in part.class_of.items():
        inner[label].add(within[len(label) + 1 :])
    return {label: frozenset(names) for label, names in inner.items() if "" not in names}


def _refuse_copy(part: Part, names: Sequence[str], inner: Mapping[str, Collection[str]]) -> None:
    """Refuse a folder that holds folders called like those beside it, such as a second copy of all."""
    for label, below in inner.items():
        again = sorted({name.partition("/")[0] for name in below} & set(names) - {label})
        if len(again) > 1:
            folder = part.root / part.folder
            raise DataError(
                f"{part}: {label!r} holds {quoted(again)}, as the folder that it is in does. Which are the "
                f"classes?\ndata.path: {printable(str(folder / label))}      those in {label!r} alone\n"
                f"data.layout: classes      {label!r} is a class as well"
            )


def _refuse_two_levels(part: Part, names: Sequence[str], inner: Mapping[str, Collection[str]]) -> None:
    """Refuse folders that hold several others each, and all images in these."""
    several = sorted(label for label, below in inner.items() if len(below) > 1)
    if len(inner) < len(names) or len(names) < 2 or not several:
        return
    paths = [f"{label}/{below}" for label in sorted(inner) for below in sorted(inner[label])]
    example = paths[0].split("/")[1]
    raise DataError(
        f"{part}: the images lie in {counted(len(paths), 'folder')} inside of {quoted(names)}. Which are the "
        "classes?\n"
        f"data.layout: classes           {quoted(names)}\n"
        f"data.layout: classes/groups    {quoted(names)}; {quoted([example])} and so on are patients or the "
        "like, each on one side of the split\n"
        f"data.layout: innermost         {quoted(paths)}"
    )
