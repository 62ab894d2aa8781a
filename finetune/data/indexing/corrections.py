"""Correct labels by a table of decisions, without touching an image or the table that labels are from.

A decision is `keep`, `drop`, or the class that an image has from now on; of several classes their names with
`|` or `data.label_separator` between them, or `none`. A row that keeps its image says nothing, also if that
image is gone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from finetune.data.image_files import digest_file
from finetune.data.index import Corrections, ImageIndex, Sample
from finetune.data.indexing.image_names import DROP, KEEP, ImageNames, check_classes, named_column
from finetune.data.table import read_table
from finetune.task import LABEL_JOINT
from finetune.text import expanded, printable, quoted, unprotect_cell

COLUMNS = ("image", "label", "likely", "doubt", "decision")
"""of the table that `finetune labels` writes; the first and the last are read"""

NO_CLASS = "none"


@dataclass(frozen=True)
class Decisions:
    """What a table decides of some images."""

    file: str
    """the table, as the config names it"""
    blake2b: str
    labels: Mapping[str, tuple[int, ...] | None]
    """the classes of an image from now on, by its name; None where it is dropped"""


def read_decisions(file: str, index: ImageIndex) -> Decisions:
    """Read what a table decides of the images of an index.

    Args:
        file: the table.
        index: all images of the data, before any is held out.

    Raises:
        DataError: no such table, or rows with images or decisions that cannot be.
    """
    table = read_table(file, errors="surrogateescape")
    images, decisions = (
        named_column(table, name, key="corrections", columns="image and decision", command="labels")
        for name in ("image", "decision")
    )
    names = ImageNames(index)
    reader = _Reader(index, names)
    labels: dict[str, tuple[int, ...] | None] = {}
    places: dict[str, str] = {}
    faults = []
    for number, (image, decision) in enumerate(zip(images, decisions, strict=True)):
        if decision.strip().casefold() in ("", KEEP):
            continue
        place = table.place(number)
        try:
            name, decided = names.find(image), reader.decision(decision)
            if name in labels and labels[name] != decided:
                raise ValueError(f"{printable(name)} is decided otherwise in {places[name]}")
        except ValueError as fault:
            faults.append(f"{place}: {fault}")
            continue
        labels[name], places[name] = decided, place
    if faults:
        table.refuse(faults)
    return Decisions(file, digest_file(expanded(file)), labels)


def correct(index: ImageIndex, decisions: Decisions) -> ImageIndex:
    """Return the index with what was decided, and a record of it.

    Raises:
        DataError: a class has no image to train on any more, or there is nothing to validate on.
    """
    changed: dict[str, Sample] = {}
    dropped: dict[str, Sample] = {}
    samples = []
    for sample in index.samples:
        labels = decisions.labels.get(sample.name, sample.labels)
        if labels is None:
            dropped[sample.name] = sample
            continue
        if labels != sample.labels:
            changed[sample.name] = sample
        samples.append(sample._replace(labels=labels))
    record = Corrections(decisions.file, decisions.blake2b, changed, dropped)
    corrected = replace(index, samples=tuple(samples), corrections=record)
    return check_classes(index, corrected, f"data.corrections: {printable(decisions.file)}")


class _Reader:
    """What the cells of a table of decisions mean for the images of an index."""

    def __init__(self, index: ImageIndex, names: ImageNames) -> None:
        self._index = index
        self._names = names
        self._targets = {name: target for target, name in enumerate(index.class_names)}

    def decision(self, cell: str) -> tuple[int, ...] | None:
        """Return the classes that a row decides on, or None to drop its image.

        Raises:
            ValueError: it decides on nothing that there is.
        """
        text = cell.strip()
        if text.casefold() == DROP:
            return None
        if (target := self._target(text)) is not None:
            return (target,)
        if not self._index.task.multilabel:
            hint = self._names.hint(text, self._index.class_names)
            raise ValueError(f"decision {printable(text)!r} is none of {KEEP}, {DROP} and the classes{hint}")
        return () if text.casefold() == NO_CLASS else self._several(text)

    def _several(self, text: str) -> tuple[int, ...]:
        separator = self._index.columns.label_separator
        joint = LABEL_JOINT if separator is None or LABEL_JOINT in text else separator
        names = [name.strip() for name in text.split(joint if joint.strip() else None)]
        unknown = [name for name in names if self._target(name) is None]
        if unknown:
            hint = self._names.hint(unknown[0], self._index.class_names)
            raise ValueError(
                f"decision {printable(text)!r} has {quoted(unknown)}, which is no class{hint}; expected "
                f"{KEEP}, {DROP}, {NO_CLASS}, or classes with {joint!r} between them"
            )
        return tuple(sorted({target for name in names if (target := self._target(name)) is not None}))

    def _target(self, name: str) -> int | None:
        return self._targets.get(name, self._targets.get(unprotect_cell(name)))
