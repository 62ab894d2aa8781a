"""Correct labels by a table of decisions, without touching an image or the table that labels are from.

A decision is `keep`, `drop`, or the class that an image has from now on; of several classes their names with
`|` or `data.label_separator` between them, or `none`. A row that keeps its image says nothing, also if that
image is gone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from posixpath import basename, normpath

from finetune.data.index import Corrections, ImageIndex, Sample
from finetune.data.quality.fingerprint import digest_file
from finetune.data.table import Table, read_table
from finetune.errors import DataError
from finetune.task import LABEL_JOINT
from finetune.text import printable, quoted, unprotect_cell, with_counts

COLUMNS = ("image", "label", "likely", "doubt", "decision")
"""of the table that `finetune labels` writes; the first and the last are read"""

KEEP, DROP, NO_CLASS = "keep", "drop", "none"

_HINTS = 5  # faults for which the nearest name is looked for: that takes time with many images


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
    images, decisions = (_column(table, name) for name in ("image", "decision"))
    reader = _Reader(index)
    labels: dict[str, tuple[int, ...] | None] = {}
    places: dict[str, str] = {}
    faults = []
    for number, (image, decision) in enumerate(zip(images, decisions, strict=True)):
        if decision.strip().casefold() in ("", KEEP):
            continue
        place = table.place(number)
        try:
            name, decided = reader.image(image), reader.decision(decision)
            if name in labels and labels[name] != decided:
                raise ValueError(f"{printable(name)} is decided otherwise in {places[name]}")
        except ValueError as fault:
            faults.append(f"{place}: {fault}")
            continue
        labels[name], places[name] = decided, place
    if faults:
        table.refuse(faults)
    return Decisions(file, digest_file(Path(file).expanduser()), labels)


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
    return _check_classes(index, corrected)


def _check_classes(before: ImageIndex, after: ImageIndex) -> ImageIndex:
    """Refuse corrections that leave nothing to learn a class from, and warn of gaps in validation."""
    assert after.corrections is not None
    file = printable(after.corrections.file)
    train = {name: number for name, number in before.counts("train").items() if number}
    lost = {name: number for name, number in train.items() if not after.counts("train")[name]}
    if lost:
        raise DataError(
            f"data.corrections: {file} leaves no image to train on of {with_counts(lost)}; keep some, or "
            "take the whole class out of the data."
        )
    if before.count("val") and not after.count("val"):
        raise DataError(f"data.corrections: {file} leaves nothing to validate on; keep some val images.")
    val = before.counts("val")
    absent = {name: number for name, number in val.items() if number and not after.counts("val")[name]}
    if not absent:
        return after
    line = f"classes without an image to validate on after the corrections: {with_counts(absent)}"
    return replace(after, warnings=(*after.warnings, line))


class _Reader:
    """What the cells of a table of decisions mean for the images of an index."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._names = {sample.name for sample in index.samples}
        self._targets = {name: target for target, name in enumerate(index.class_names)}
        self._hints = _HINTS

    def image(self, cell: str) -> str:
        """Return the image of a row.

        Raises:
            ValueError: there is none of this name.
        """
        for name in (cell, unprotect_cell(cell), normpath(unprotect_cell(cell.strip()))):
            if name in self._names:
                return name
        same = [name for name in self._names if basename(name) == basename(cell)]
        raise ValueError(f"no image {printable(cell)!r} in the data{self._hint(cell, same or self._names)}")

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
            hint = self._hint(text, self._index.class_names)
            raise ValueError(f"decision {printable(text)!r} is none of {KEEP}, {DROP} and the classes{hint}")
        return () if text.casefold() == NO_CLASS else self._several(text)

    def _several(self, text: str) -> tuple[int, ...]:
        separator = self._index.columns.label_separator
        joint = LABEL_JOINT if separator is None or LABEL_JOINT in text else separator
        names = [name.strip() for name in text.split(joint if joint.strip() else None)]
        unknown = [name for name in names if self._target(name) is None]
        if unknown:
            hint = self._hint(unknown[0], self._index.class_names)
            raise ValueError(
                f"decision {printable(text)!r} has {quoted(unknown)}, which is no class{hint}; expected "
                f"{KEEP}, {DROP}, {NO_CLASS}, or classes with {joint!r} between them"
            )
        return tuple(sorted({target for name in names if (target := self._target(name)) is not None}))

    def _target(self, name: str) -> int | None:
        return self._targets.get(name, self._targets.get(unprotect_cell(name)))

    def _hint(self, name: str, names: Collection[str]) -> str:
        self._hints -= 1
        near = get_close_matches(name, names, n=1) if self._hints >= 0 else []
        return f"; did you mean {printable(near[0])!r}?" if near else ""


def _column(table: Table, name: str) -> Sequence[str]:
    positions = [number for number, heading in enumerate(table.header) if heading.casefold() == name]
    if len(positions) != 1:
        raise DataError(
            f"data.corrections: {table} has no column {name!r}; expected the columns image and decision, as "
            "`finetune labels --csv FILE` writes them."
        )
    return table.column(positions[0])
