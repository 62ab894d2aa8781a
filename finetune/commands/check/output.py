"""What `finetune check` leaves beside lines on the screen: a table to decide in, and a page to choose on."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from finetune.choices import Split
from finetune.commands.check.report import LEVELS, Report
from finetune.commands.decisions import check_nothing_lost
from finetune.data.images import ImageError, ImageLimits
from finetune.data.index import ImageIndex, Sample
from finetune.data.indexing.exclude import COLUMNS
from finetune.data.indexing.image_names import DROP, KEEP
from finetune.data.quality.finding import Finding, Item
from finetune.data.table import Table
from finetune.display import Display
from finetune.machine.files import csv_bytes, write_bytes, write_file
from finetune.report.check_page import CheckPage, FoundImage, FoundItem, Section, check_page
from finetune.report.thumbnails import address_of, load_thumbnail
from finetune.text import protect_cell

_MOST_SHOWN, _MOST_OF_ONE = 300, 60  # images of a page, and of one finding: it stays at a few megabytes
_TOGETHER = 6  # images of one item

# What is proposed: to leave out what tells nothing, and of repeated images all but one, the one to be scored.
_USELESS = ("unreadable", "dark", "bright", "empty")
_REPEATED = ("copies-repeated", "copies-across-splits", "lookalikes-across-splits")
_WORTH: dict[Split, int] = {"test": 2, "val": 1, "train": 0}


class Row(NamedTuple):
    """One image of a finding, as the table has it."""

    image: str
    finding: str
    detail: str
    decision: str


def table_rows(report: Report) -> list[Row]:
    """Return a row for each image of each finding, with what is proposed."""
    samples = _samples(report)
    return [
        Row(name, finding.kind, item.detail, DROP if name in proposed else KEEP)
        for finding in _gravest_first(report)
        for item in finding.items
        for proposed in (proposed_of(finding, item, samples),)
        for name in item.images
    ]


def proposed_of(finding: Finding, item: Item, samples: dict[str, Sample]) -> set[str]:
    """Return which images of an item are better left out."""
    if finding.kind in _USELESS:
        return set(item.images)
    if finding.kind not in _REPEATED:
        return set()
    kept = max(item.images, key=lambda name: _WORTH[samples[name].split])
    if finding.kind == "copies-repeated":
        return set(item.images) - {kept}
    return {name for name in item.images if samples[name].split != samples[kept].split}


def write_table(report: Report, path: Path) -> None:
    """Write the table of what was found, whose column `decision` is there to be edited.

    Raises:
        ConfigError: the file is there, and somebody has decided otherwise in it.
        ResourceError: the file cannot be written.
    """
    rows = [Row(*map(protect_cell, row)) for row in table_rows(report)]
    proposed = {(row.image, row.finding): row.decision for row in rows}

    def decided_otherwise(table: Table) -> int:
        return table.header == COLUMNS and sum(
            proposed.get((image, finding), decision) != decision for image, finding, _, decision in table.rows
        )

    check_nothing_lost(path, decided_otherwise)
    write_bytes(path, csv_bytes(COLUMNS, rows))


def check_no_decisions(path: Path | None) -> None:
    """Refuse a table with decisions that no check proposes, before it takes its time.

    Of repeated images it depends on the data which are proposed to go: `write_table` looks at those.

    Raises:
        ConfigError: the file is there, and somebody has decided otherwise in it.
    """

    def decided_otherwise(table: Table) -> int:
        if table.header != COLUMNS:
            return 0
        certain = [(kind in _USELESS, cell) for _, kind, _, cell in table.rows if kind not in _REPEATED]
        return sum(cell != (DROP if useless else KEEP) for useless, cell in certain)

    if path is not None:
        check_nothing_lost(path, decided_otherwise)


def write_page(report: Report, path: Path, *, title: str, limits: ImageLimits, display: Display) -> int:
    """Write the page of what was found; return how many images it shows.

    Raises:
        ResourceError: the file cannot be written.
    """
    painter = _Painter(report.index or ImageIndex(None, (), ()), limits)
    findings = _gravest_first(report)
    with display.bar("thumbnails", len(findings), "findings") as bar:
        sections = []
        for finding in findings:
            sections.append(painter.section(finding))
            bar.advance_by(1)
    shown = {(image.name, section.kind) for section in sections for i in section.items for image in i.images}
    layout = painter.index.layout
    page = CheckPage(
        title=title,
        images=len(painter.index.samples),
        layout="" if layout is None else layout.line(),
        sections=sections,
        header=COLUMNS,
        others=[row for row in table_rows(report) if (row.image, row.finding) not in shown],
    )
    write_file(path, check_page(page))
    return painter.shown


class _Painter:
    """Draws the sections of a page until it is full."""

    def __init__(self, index: ImageIndex, limits: ImageLimits) -> None:
        self.index, self._limits = index, limits
        self.shown = 0
        self._samples = {sample.name: sample for sample in index.samples}

    def section(self, finding: Finding) -> Section:
        items = list(self._items(finding))
        images = sum(len(item.images) for item in finding.items)
        return Section(
            finding.level,
            finding.kind,
            finding.message,
            finding.advice,
            items,
            images - sum(len(item.images) for item in items),
        )

    def _items(self, finding: Finding) -> Iterator[FoundItem]:
        shown = 0
        for item in finding.items:
            names = item.images[:_TOGETHER]
            if shown + len(names) > _MOST_OF_ONE or self.shown + len(names) > _MOST_SHOWN:
                return
            proposed = proposed_of(finding, item, self._samples)
            yield FoundItem([self._image(name, drop=name in proposed) for name in names], item.detail)
            shown += len(names)
            self.shown += len(names)

    def _image(self, name: str, *, drop: bool) -> FoundImage:
        sample = self._samples[name]
        try:
            thumbnail = load_thumbnail(self.index, sample, self._limits)
        except ImageError:
            thumbnail = None
        label, address = self.index.label_text(sample), address_of(self.index, name)
        return FoundImage(name, sample.split, label, drop, thumbnail, address)


def _gravest_first(report: Report) -> list[Finding]:
    return [finding for level in LEVELS for finding in report.findings if finding.level == level]


def _samples(report: Report) -> dict[str, Sample]:
    return {} if report.index is None else {sample.name: sample for sample in report.index.samples}
