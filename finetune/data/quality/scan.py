"""Decode every image once before training, so that a bad one is found now and not in the third epoch."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from finetune.choices import OnBad
from finetune.data.images import ImageInfo, ImageLimits, inspect_images
from finetune.data.index import BadImage, ImageIndex, Sample
from finetune.data.quality.scan_cache import ScanMemory
from finetune.data.quality.shortcuts import shortcut_remarks
from finetune.errors import DataError
from finetune.text import counted, printable

Progress = Callable[[int, int], None]

_LISTED = 20
_SMALL = 8  # pixels
_SLIM = 20  # longer side over shorter side


class BadImagesError(DataError):
    """Images that cannot be read; `bad` has all of them, the message the first."""

    def __init__(self, listed: str, why: str, bad: tuple[BadImage, ...] = ()) -> None:
        """Take the list of the first images, and why they stop the command."""
        super().__init__(f"{listed}\n{why}")
        self.why = why
        self.bad = bad


def check_images(
    index: ImageIndex,
    limits: ImageLimits,
    *,
    on_bad: OnBad = "stop",
    max_bad_fraction: float = 0.01,
    progress: Progress | None = None,
    memory: ScanMemory | None = None,
) -> ImageIndex:
    """Decode all images of an index, and leave out the bad ones if that is wanted.

    Images that were good in an earlier scan and have not changed since (size and time) are not read again.

    Args:
        index: what to check; a built-in data set passes as it is.
        limits: what is accepted, as for reading.
        on_bad: `stop` with a list of the bad images, or `skip` them.
        max_bad_fraction: with `skip`, the greatest part of all images (0–1) that may be bad.
        progress: called with the number of images checked and of all images.
        memory: of earlier scans of this folder, which may have begun to ask about its files.

    Raises:
        BadImagesError: bad images; with `skip` too many, or all that a class trains or validates on.
    """
    if index.root is None:
        return index
    if memory is None or not memory.is_of(index.root):
        memory = ScanMemory(index.root, limits)
    infos, bad = _scan(index, limits, progress or (lambda done, total: None), memory)
    good = [sample for sample, info in zip(index.samples, infos, strict=True) if info is not None]
    known = [info for info in infos if info is not None]
    odd_ones = odd_images([sample.name for sample in good], known)
    if bad:
        index = leave_out_bad(index, bad, on_bad, max_bad_fraction)
    remarks = [f"{odd.what}: {len(odd.names)}, first {printable(odd.names[0])}" for odd in odd_ones]
    remarks += shortcut_remarks(index, good, known)
    return replace(index, warnings=(*index.warnings, *remarks))


def _scan(
    index: ImageIndex, limits: ImageLimits, progress: Progress, memory: ScanMemory
) -> tuple[list[ImageInfo | None], dict[Sample, str]]:
    """Return what is known of each image, None of a bad one, and the reason against each of these."""
    root, samples = index.root, index.samples
    assert root is not None
    infos: list[ImageInfo | None] = []
    before = 0
    for known in memory.recall([sample.name for sample in samples]):
        infos += known
        before += len(known) - known.count(None)
        if before:
            progress(before, len(samples))
    unknown = [position for position, info in enumerate(infos) if info is None]

    bad: dict[Sample, str] = {}
    paths = [os.path.join(root, samples[position].name) for position in unknown]
    results = inspect_images(paths, limits)
    try:
        for done, (position, result) in enumerate(zip(unknown, results, strict=True), start=before + 1):
            if isinstance(result, ImageInfo):
                infos[position] = result
                memory.remember(samples[position].name, result)
            else:
                bad[samples[position]] = result
            progress(done, len(samples))
    finally:
        memory.save()
    return infos, bad


def leave_out_bad(
    index: ImageIndex, reasons: Mapping[Sample, str], on_bad: OnBad, max_bad_fraction: float
) -> ImageIndex:
    """Take bad samples out of an index, with a count per class, unless they must stop the run.

    Raises:
        BadImagesError: as `check_images`.
    """
    bad = tuple(BadImage(sample.name, reason) for sample, reason in reasons.items())
    listed, part = _listed(index, reasons), len(bad) / len(index.samples)
    if on_bad == "stop":
        raise BadImagesError(listed, "Fix or remove them, or set data.on_bad_image: skip.", bad)
    if part > max_bad_fraction:
        allowed = f"data.max_bad_fraction allows ({max_bad_fraction:.2%})"
        raise BadImagesError(listed, f"That is {part:.2%} of all images, more than {allowed}.", bad)
    layout = index.layout and index.layout.without("images", "cannot be read", len(bad))
    samples = tuple(sample for sample in index.samples if sample not in reasons)
    kept = replace(index, samples=samples, bad=bad, layout=layout)
    for split in ("train", "val"):
        before, after = index.counts(split), kept.counts(split)
        for name in index.class_names:
            if before[name] and not after[name]:
                raise BadImagesError(listed, f"No {split} image of class {name!r} can be read.", bad)
    per_class = Counter(index.class_names[label] for sample in reasons for label in sample.labels)
    numbers = ", ".join(f"{printable(name)} {number}" for name, number in sorted(per_class.items()))
    of_what = numbers or "without a class"
    line = f"skipped {len(bad):,} of {counted(len(index.samples), 'image')} that cannot be read: {of_what}"
    return replace(kept, warnings=(*index.warnings, line))


def _listed(index: ImageIndex, bad: Mapping[Sample, str]) -> str:
    number = counted(len(bad), "image")
    lines = [f"{number} of {len(index.samples):,} in {printable(str(index.root))} cannot be read:"]
    for sample, reason in islice(bad.items(), _LISTED):
        place = f" ({sample.place} of the table)" if sample.place else ""
        lines.append(f"  {printable(sample.name)}{place}: {reason}")
    if len(bad) > _LISTED:
        lines.append(f"  … and {len(bad) - _LISTED:,} more")
    return "\n".join(lines)


class OddImages(NamedTuple):
    """Images that can be read and are odd in one way."""

    kind: str
    what: str
    names: tuple[str, ...]


_ODD = {
    "animated": "are animated or have several pages; the first image is used",
    "tiny": f"are less than {_SMALL} pixels wide or high",
    "slim": f"are more than {_SLIM} times as long as wide",
}


def odd_images(names: Sequence[str], infos: Sequence[ImageInfo]) -> list[OddImages]:
    """Find images that can be read and are odd, by the way in which they are; `infos` is what each is."""
    # There are few kinds of images, however many images there are.
    odd = {info: ways for info in set(infos) if (ways := _ways_to_be_odd(info))}
    found: dict[str, list[str]] = {kind: [] for kind in _ODD}
    for name, info in zip(names, infos, strict=True) if odd else ():
        for kind in odd.get(info, ()):
            found[kind].append(name)
    return [OddImages(kind, f"images that {_ODD[kind]}", tuple(odd)) for kind, odd in found.items() if odd]


def _ways_to_be_odd(info: ImageInfo) -> tuple[str, ...]:
    shorter, longer = sorted((info.width, info.height))
    ways = {"animated": info.animated, "tiny": shorter < _SMALL, "slim": longer > _SLIM * shorter}
    return tuple(kind for kind, is_so in ways.items() if is_so)
