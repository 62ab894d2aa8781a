"""The index of a data set: names, classes and splits, without a pixel."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from finetune.choices import Split
from finetune.data.builtin import digits, turned_digits
from finetune.data.data_layout import ANYHOW, FolderOptions, Layout
from finetune.data.images import ImageLimits, read_image
from finetune.data.metadata import Metadata
from finetune.data.table import USUAL_COLUMNS, Columns
from finetune.task import SingleLabel, Task
from finetune.text import printable

SPLIT_HEADER = ("image", "split", "class")
"""how the column names of the table that records a split begin; those of metadata follow"""


class Sample(NamedTuple):
    """One labelled image."""

    name: str
    """POSIX path relative to the root of its index"""
    labels: tuple[int, ...]
    """positions of its classes in `ImageIndex.class_names`; one, unless an image may have several"""
    split: Split
    group: str | None = None
    """what it has in common with others, such as a patient: a group never stands on two sides of a split"""
    place: str = ""
    """where a table says so, as `line 7`; empty where no table does"""
    metadata: tuple[str, ...] = ()
    """its cells, in the order of the index's `metadata`"""

    @property
    def target(self) -> int:
        """Position of its class, of an image that has one."""
        (target,) = self.labels
        return target


class BadImage(NamedTuple):
    """An image that cannot be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Corrections:
    """What a table has changed of the labels of an index."""

    file: str
    """the table, as the config names it"""
    blake2b: str
    """digest of its content"""
    relabelled: Mapping[str, Sample]
    """images that have other classes now, by name, as they were"""
    dropped: Mapping[str, Sample]
    """images that are left out, by name"""

    def __str__(self) -> str:
        numbers = f"{len(self.relabelled):,} relabelled, {len(self.dropped):,} dropped"
        return f"{numbers} ({printable(self.file)})"

    def to_dict(self) -> dict[str, str | int]:
        """Return them as `started.json` records them."""
        return {
            "file": self.file,
            "blake2b": self.blake2b,
            "relabelled": len(self.relabelled),
            "dropped": len(self.dropped),
        }


@dataclass(frozen=True)
class ImageIndex:
    """All samples of a data set, in the order of their names' bytes."""

    root: Path | None
    """folder that the names are relative to; `None` for a built-in data set"""
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    """what the user should know, one line each"""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """files that were passed over, by the ending of their name"""
    bad: tuple[BadImage, ...] = ()
    """images that were left out because they cannot be read"""
    columns: Columns = USUAL_COLUMNS
    """the columns of its table that were named, to find the same ones in other tables"""
    metadata: Metadata | None = None
    """what the metadata beside its images means; None where there is none"""
    task: Task = field(default_factory=SingleLabel)
    """what is asked of each sample: its class, or its classes"""
    corrections: Corrections | None = None
    """what was changed of the labels; None where no table was named"""
    layout: Layout | None = None
    """what the data set was taken for; None where nothing was read"""
    folders: FolderOptions = ANYHOW
    """how a folder was to be read, to read others in the same way"""

    def of_split(self, split: Split) -> tuple[Sample, ...]:
        """Return the samples of one split, in order."""
        return tuple(sample for sample in self.samples if sample.split == split)

    def count(self, split: Split) -> int:
        """Count the samples of one split."""
        return self._sizes[split]

    @cached_property
    def _sizes(self) -> Counter[Split]:
        return Counter([sample.split for sample in self.samples])

    def counts(self, split: Split) -> dict[str, int]:
        """Count the samples of one split by class name, in class order, zeros included."""
        numbers = [0] * len(self.class_names)
        # There are fewer kinds of labels than samples.
        for labels, number in Counter([s.labels for s in self.samples if s.split == split]).items():
            for label in labels:
                numbers[label] += number
        return dict(zip(self.class_names, numbers, strict=True))

    def thinned(self, split: Split, most: int) -> "ImageIndex":
        """Return one with at most `most` samples of a split, evenly spaced; classes keep their shares."""
        samples = self.of_split(split)
        if len(samples) <= most:
            return self
        kept = {samples[i * len(samples) // most].name for i in range(most)}
        thin = tuple(sample for sample in self.samples if sample.split != split or sample.name in kept)
        return replace(self, samples=thin)

    @property
    def header(self) -> tuple[str, ...]:
        """What the columns of `rows` are called; no column of a user's can be called like one of ours."""
        names = () if self.metadata is None else self.metadata.names
        return (*SPLIT_HEADER, *(f"metadata.{name}" for name in names))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Return name, split, class names (joined) and metadata of every sample, for the record of a run."""
        for sample in self.samples:
            yield sample.name, sample.split, self.label_text(sample), *sample.metadata

    def metadata_rows(self, split: Split) -> list[tuple[str, ...]]:
        """Return the metadata cells of every sample of a split."""
        return [sample.metadata for sample in self.samples if sample.split == split]

    def label_text(self, sample: Sample) -> str:
        """Return the names of the classes of a sample in one text."""
        return self.task.label_text(self.labels_of(sample))

    def labels_of(self, sample: Sample) -> list[str]:
        """Return the names of the classes of a sample."""
        return [self.class_names[label] for label in sample.labels]

    def target(self, sample: Sample) -> int | list[float]:
        """Return what a model is to answer for a sample: its class, or of several 0 and 1 for each class."""
        return self.task.target(sample.labels, len(self.class_names))

    @property
    def labels_per_image(self) -> float:
        """Return the mean number of classes of a sample."""
        return sum(len(sample.labels) for sample in self.samples) / len(self.samples)


def load_sample(
    index: ImageIndex, sample: Sample, limits: ImageLimits, *, shrink_to: int | None = None
) -> Image.Image:
    """Load the image of a sample as upright RGB.

    Args:
        index: the index that the sample is from.
        sample: the sample.
        limits: what is accepted, as for `finetune.data.images.read_image`.
        shrink_to: shortest side in pixels that is still enough, as for `finetune.data.images.read_image`.

    Raises:
        ImageError: the file cannot be read (any more).
    """
    if index.root is None and sample.name.startswith(turned_digits.FOLDER):
        return turned_digits.load_image(sample.name)
    if index.root is None:
        return digits.digit_image(_digit_positions()[sample.name])
    return read_image(index.root / sample.name, limits, shrink_to=shrink_to)


@cache
def _digit_positions() -> dict[str, int]:
    return {name: position for position, name in enumerate(digits.sample_names())}
