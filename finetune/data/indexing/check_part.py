"""What has to be true of one split of a data set of folders, and what is said where it is not."""

import os
from collections.abc import Mapping

from finetune.data.image_files import is_folder
from finetune.data.indexing.find_images import list_folders
from finetune.data.indexing.foreign_formats import foreign_hint, labels_hint
from finetune.data.indexing.label_pattern import propose_pattern
from finetune.data.indexing.part import Part
from finetune.data.indexing.table_beside import holds_class_folders, tables_hint, tables_in
from finetune.data.table.pixel_tables import pixels_hint
from finetune.errors import DataError
from finetune.text import counted, printable, quoted, with_counts

_DEEPEST = 10  # folders that are gone down to find those of classes


def train_alone(train: Part | None, part: Part) -> str:
    """Return the line that trains without another part that has none of its class folders."""
    if train is None or train is part or not train.folder or set(part.counts) & set(train.counts):
        return ""
    folder = printable(train.folder.partition("/")[0])
    return f"\nOr train without it: data.layout: {{train: {folder}}} holds out a part of {folder}."


def check_not_empty(part: Part, train: Part | None = None) -> None:
    """Check that a part has class folders, and images in each; `train` is the training part beside it.

    Raises:
        DataError: it has not.
    """
    images = part.found.images
    if part.pattern is not None and images and not part.labels:
        example = printable(os.path.basename(images[0]))
        raise DataError(
            f"data.label_pattern: {printable(part.pattern)} finds no class in the names of the "
            f"{counted(len(images), 'image')} in {part}, for instance in {example!r}."
        )
    if not part.counts and images:
        raise DataError(
            f"no class folders in {part}: {_lie(len(images))} directly in it; "
            "put the images of each class into a folder of its own."
            + (
                _proposal(part) + (train_alone(train, part) or tables_hint(part.root / part.folder))
                or _ways_to_say_classes(os.path.basename(images[0]))
            )
        )
    if not any(part.counts.values()):
        raise DataError(
            f"no images in {part} (looked for .bmp .gif .jpg .png .tiff .webp and the like in "
            f"folders, one for each class){_other_endings(part)}." + _other_files(part)
        )
    empty = [name for name, number in part.counts.items() if number == 0]
    if empty and part.split == "train":
        raise DataError(
            f"class folders of {part} without an image: {quoted(empty)}; "
            f"add images, or remove what is no class.{_below(part)}" + tables_hint(part.root / part.folder)
        )


def _other_files(part: Part) -> str:
    folder = part.root / part.folder
    return pixels_hint(folder, tables_in(folder)) or foreign_hint(folder, part.found.ignored)


def _below(part: Part) -> str:
    """Guess that the folder meant is the only one with images, if it holds class folders."""
    full = [part.root / part.folder / name for name, number in part.counts.items() if number]
    if len(full) != 1:
        return ""
    if holds_class_folders(full[0]):
        return f" Did you mean {printable(str(full[0]))}?"
    proposal = propose_pattern(part.found.images)
    return (
        f" Did you mean {printable(str(full[0]))} with data.label_pattern: '{proposal.pattern}'?"
        if proposal is not None
        else ""
    )


def _lie(number: int) -> str:
    return "1 image lies" if number == 1 else f"{number:,} images lie"


def _proposal(part: Part) -> str:
    proposal = propose_pattern(part.found.images)
    if proposal is None:
        return ""
    doubt = f" ({proposal.doubt})" if proposal.doubt else ""
    return f"\nOr read the classes from their names: data.label_pattern: '{proposal.pattern}'{doubt}."


def _ways_to_say_classes(example: str) -> str:
    """Show a line of each of the forms in which classes are said, of an image that is there."""
    name = printable(example)
    return (
        f"\nFor instance cat/{name}; or a table, data.path: labels.csv with a line file,label and then "
        f"{name},cat; or names such as cat_1.jpg and data.label_pattern: '^([^_]+)_'."
    )


def _other_endings(part: Part) -> str:
    """Name what there is instead of images."""
    most = part.found.ignored.most_common(3)
    return f"; there is {', '.join(f'{kind} {number}' for kind, number in most)}" if most else ""


def check_at_least_two(train: Part) -> None:
    """Check that the training part has two classes or more.

    Raises:
        DataError: it has not.
    """
    if len(train.counts) < 2:
        raise DataError(
            f"need at least 2 classes; {train} has {len(train.counts)}: {with_counts(train.counts)}."
            + (_hint(train) or tables_hint(train.root / train.folder) or _other_labels(train))
        )


def _other_labels(train: Part) -> str:
    """Say where classes may stand that folders do not say: in files of other programs, names, or a table."""
    if train.pattern is not None:
        return ""
    return labels_hint(train.root / train.folder, train.found.ignored) or (
        _proposal(train)
        or "\nPut the images of each class into a folder of its own, or name what says "
        "the classes: a table (data.path: TABLE.csv), or a pattern of names (data.label_pattern: ^([^_]+)_)."
    )


def _hint(train: Part) -> str:
    """Guess that the folder meant is further down, where one folder alone is in another."""
    below, names = train.root / train.folder, list(train.counts)
    if train.pattern is not None:
        return ""
    for _ in range(_DEEPEST):
        if len(names) != 1 or not is_folder(below / names[0]):
            break
        below /= names[0]
        names = list_folders(below)
        if len(names) > 1:
            return f" Did you mean {printable(str(below))}?"
    return ""


def too_few_images(counts: Mapping[str, int]) -> str | None:
    """Say which classes have too few images for a part to be held out, from the numbers of their images."""
    single = {name: number for name, number in counts.items() if number < 2}
    if not single:
        return None
    classes = with_counts(single)
    advice = "a class needs at least 2: add some, or take the class out"
    return f"too few images to train and validate on in {classes}; {advice}"
