"""What a thorough look at a data set finds: each finding with its images, its level, and how to fix it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from finetune.choices import OnBad
from finetune.data.images import THUMBNAIL_SIDE, ImageError, ImageLimits, Look, enlarge_thumbnail
from finetune.data.index import ImageIndex, Sample
from finetune.data.quality.copies import find_copies, find_copies_in
from finetune.data.quality.finding import Finding, Item, Level
from finetune.data.quality.fingerprint import Fingerprint
from finetune.data.quality.lookalikes import find_lookalikes
from finetune.data.quality.scan import BadImagesError, leave_out_bad, odd_images
from finetune.machine.cores import in_threads
from finetune.text import counted

FEW = 10
"""training images of a class; of fewer, `find_few` warns"""

_MODES = {"1": "black and white", "L": "grey", "P": "palette", "CMYK": "CMYK", "YCbCr": "YCbCr", "LAB": "Lab"}

_ODD_ADVICE = {
    "animated": "Save the images that matter as single files, unless it is the first.",
    "tiny": "Training enlarges them to data.image_size; remove them if they are thumbnails or icons.",
    "slim": "Training sees a square cut out of them; crop them to what matters.",
}


def find_bad(
    index: ImageIndex, reasons: Mapping[Sample, str], on_bad: OnBad, max_bad_fraction: float
) -> tuple[ImageIndex, list[Finding]]:
    """Take out the images that cannot be read, and tell of them: an error where they stop a training."""
    if not reasons:
        return index, []
    items = tuple(Item((sample.name,), reason) for sample, reason in reasons.items())
    message = f"{counted(len(items), 'image')} of {len(index.samples):,} cannot be read"
    try:
        kept = leave_out_bad(index, reasons, on_bad, max_bad_fraction)
        advice = "data.on_bad_image: skip leaves them out; fix or remove them."
        return kept, [Finding("warning", "unreadable", message, advice, items)]
    except BadImagesError as error:
        kept = replace(index, samples=tuple(s for s in index.samples if s not in reasons))
        return kept, [Finding("error", "unreadable", message, error.why, items)]


def find_odd(looks: Mapping[str, Look]) -> list[Finding]:
    """Find images that can be read and are odd: animated, tiny, slim, not stored as 8-bit colour."""
    findings = []
    for odd in odd_images(list(looks), [look.info for look in looks.values()]):
        items = tuple(Item((name,), _size(looks[name])) for name in odd.names)
        message = f"{odd.what}: {len(items):,}"
        findings.append(Finding("warning", odd.kind, message, _ODD_ADVICE[odd.kind], items))
    modes = {name: _MODES.get(look.mode, look.mode) for name, look in looks.items() if look.mode != "RGB"}
    # A data set of grey images only is what it is; what differs from the rest is worth a line.
    if modes and (len(modes) < len(looks) or len(set(modes.values())) > 1):
        items = tuple(Item((name,), mode) for name, mode in modes.items())
        message = f"{counted(len(items), 'image')} not stored as 8-bit RGB"
        advice = "They are converted, transparent ones on data.background: nothing to do if that is meant."
        findings.append(Finding("note", "mode", message, advice, items))
    return findings


def find_few(index: ImageIndex) -> list[Finding]:
    """Tell of classes with few images to train on."""
    few = [f"{name!r} ({number})" for name, number in index.counts("train").items() if number < FEW]
    if not few:
        return []
    have = "have" if len(few) > 1 else "has"
    message = (
        f"{counted(len(few), 'class', 'classes')} {have} fewer than {FEW} images to train on: {_some(few)}"
    )
    return [Finding("warning", "few-images", message, "Add images, or merge or drop these classes.")]


def warnings_of_copies(index: ImageIndex, files: Mapping[str, Fingerprint] | None = None) -> list[str]:
    """Tell of files that are there more than once, byte for byte; cheap enough for every training.

    Args:
        index: the data set.
        files: the fingerprint of every image, where it was taken; nothing is read then.
    """
    if index.root is None:
        return []
    copies = _copies(index) if files is None else find_copies_in(files)
    return [
        f"{finding.message}, first {' = '.join(finding.items[0].images[:2])}; `finetune check` lists them all"
        for finding in _repeats("copies", copies, index)
    ]


def find_repeats(index: ImageIndex, looks: Mapping[str, Look], limits: ImageLimits) -> list[Finding]:
    """Tell of images that are there more than once: byte for byte, or resized, recompressed, brightened.

    Args:
        index: the readable images of a folder.
        looks: a look at each of them.
        limits: what is accepted, as for reading: those that look alike are looked at again.
    """
    copies, alike = _copies(index), []
    copy_of = {name: number for number, group in enumerate(copies) for name in group}
    names = [sample.name for sample in index.samples]
    if names:
        side, thumbnails = THUMBNAIL_SIDE**2, (looks[name].thumbnail for name in names)
        rows = np.fromiter(thumbnails, f"S{side}", len(names)).view(np.uint8).reshape(len(names), side)
        for positions in find_lookalikes(rows, lambda some: _enlarged(index, some, limits)):
            group = tuple(names[position] for position in positions)
            if len({copy_of.get(name, name) for name in group}) > 1:
                alike.append(group)
    return [*_repeats("copies", copies, index), *_repeats("lookalikes", alike, index)]


def _enlarged(index: ImageIndex, positions: Sequence[int], limits: ImageLimits) -> list[bytes | None]:
    """Return larger thumbnails of some images; None for one that has changed since it was looked at."""
    root = index.root
    assert root is not None

    def enlarge(position: int) -> bytes | None:
        try:
            return enlarge_thumbnail(root / index.samples[position].name, limits)
        except ImageError:
            return None

    return [picture for _, picture in in_threads(enlarge, positions)]


def _copies(index: ImageIndex) -> list[tuple[str, ...]]:
    assert index.root is not None
    return find_copies(index.root, [sample.name for sample in index.samples])


class _Group:
    """Files that hold the same image."""

    def __init__(self, names: Sequence[str], samples: Mapping[str, Sample]) -> None:
        self.samples = [samples[name] for name in names]
        self.labels = {sample.labels for sample in self.samples}
        self.splits = {sample.split for sample in self.samples}

    @property
    def harm(self) -> Literal["two-labels", "across-splits", "repeated"]:
        """The worst that the repetition does."""
        if len(self.labels) > 1:
            return "two-labels"
        return "across-splits" if len(self.splits) > 1 else "repeated"

    def item(self, index: ImageIndex) -> Item:
        """Name the images, one of each split and label first, and say where they differ."""
        first = {(sample.split, sample.labels): sample for sample in reversed(self.samples)}
        leading = sorted(first.values(), key=self.samples.index)
        rest = [sample for sample in self.samples if sample not in leading]
        details = [
            [sample.split] * (len(self.splits) > 1)
            + [index.label_text(sample) or "no class"] * (len(self.labels) > 1)
            for sample in leading
        ]
        return Item(
            tuple(sample.name for sample in (*leading, *rest)),
            ", ".join(" ".join(detail) for detail in details if detail),
        )


_REPEATS = {"copies": "the same file", "lookalikes": "images that look alike"}

_HARMS = {
    "two-labels": ("with two labels", "Keep the right one; the other teaches what is wrong."),
    "across-splits": (
        "in more than one split",
        "Keep them in one: scores on images that were trained on are too good.",
    ),
    "repeated": ("in one split and class", "Keep one of each; the others only count it again."),
}

_OF_SEVERAL = {"two-labels": "with different labels", "repeated": "in one split, with the same labels"}


def _repeats(kind: str, groups: Sequence[tuple[str, ...]], index: ImageIndex) -> list[Finding]:
    """Make findings of groups of repeated images, by the harm that they do."""
    samples = {sample.name: sample for sample in index.samples}
    sorted_groups = [_Group(names, samples) for names in groups]
    findings = []
    for harm, (where, advice) in _HARMS.items():
        where = _OF_SEVERAL.get(harm, where) if index.task.multilabel else where
        items = tuple(group.item(index) for group in sorted_groups if group.harm == harm)
        if items:
            count = counted(len(items), "group")
            message = f"{_REPEATS[kind]} {where}: {count} of images"
            if (kind, harm) == ("lookalikes", "two-labels"):
                advice = "Look at both: of one image keep the right label; two images may be that alike."
            # Bursts of photos are alike, and rightly so, as long as they stay together.
            level: Level = "note" if (kind, harm) == ("lookalikes", "repeated") else "warning"
            findings.append(Finding(level, f"{kind}-{harm}", message, advice, items))
    return findings


def _size(look: Look) -> str:
    return f"{look.info.width} × {look.info.height}"


def _some(texts: Sequence[str], shown: int = 20) -> str:
    more = f" and {len(texts) - shown:,} more" if len(texts) > shown else ""
    return ", ".join(texts[:shown]) + more
