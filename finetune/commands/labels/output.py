"""What `finetune labels` leaves: lines on the screen, a table of decisions, and a page to decide on."""

from collections import Counter
from pathlib import Path

from finetune.commands.decisions import check_nothing_lost
from finetune.commands.labels.find import Answer, JudgedImage
from finetune.data.indexing.corrections import COLUMNS
from finetune.data.indexing.image_names import KEEP
from finetune.data.table import Table
from finetune.display import Display
from finetune.machine.files import csv_bytes, write_bytes, write_file
from finetune.report.labels_page import MOST_SHOWN, DoubtfulImage, LabelsPage, labels_page
from finetune.report.thumbnails import address_of, load_thumbnail
from finetune.text import counted, printable, protect_cell

_LISTED = 20


def show_answer(answer: Answer, display: Display) -> None:
    """Show the most doubtful of the flagged images, which classes are taken for which, and what is alike."""
    flagged, doubtful = answer.flagged, answer.doubtful
    if flagged:
        display.say("")
        rows = [(i.sample.name, i.sample.split, i.label, i.likely, f"{i.doubt:.1%}") for i in flagged]
        columns = ("image", "split", "label", "likely", "doubt")
        display.table(columns, rows[:_LISTED], paths=("image",), least_important=("split",))
        if len(rows) > _LISTED:
            display.say(f"… and {len(rows) - _LISTED:,} more; --json, --csv and --html have them")
        display.say("")
        pairs = Counter((image.label, image.likely) for image in flagged).most_common()
        display.table(("label", "likely", "flagged"), [(*pair, n) for pair, n in pairs[:_LISTED]])
    if answer.alike:
        display.say("\nthe same image with different labels:")
        for item in answer.alike[:_LISTED]:
            display.say(f"  {' = '.join(map(printable, item.images))}: {item.detail}")
        if len(answer.alike) > _LISTED:
            display.say(f"  … and {len(answer.alike) - _LISTED:,} more")
    display.say(f"\n{summary(answer)}")
    if doubtful and not flagged:
        display.say("No label is flagged; --html shows those that are most doubtful.")


def summary(answer: Answer) -> str:
    """Say in a line what was found."""
    flagged = answer.flagged
    by_split = Counter(image.sample.split for image in flagged)
    where = ", ".join(f"{number:,} {split}" for split, number in sorted(by_split.items()))
    alike = f"; {counted(len(answer.alike), 'group')} alike with different labels" if answer.alike else ""
    return (
        f"{len(flagged):,} of {counted(len(answer.images), 'label')} flagged{f' ({where})' * bool(where)}, "
        f"{len(answer.doubtful):,} with another likely class{alike}"
    )


def write_decisions(answer: Answer, path: Path) -> None:
    """Write a row for every image, whose column `decision` is there to be edited.

    Raises:
        ResourceError: the file cannot be written.
    """
    rows = [tuple(map(protect_cell, row)) for row in answer.rows()]
    write_bytes(path, csv_bytes(COLUMNS, rows))


def check_no_decisions(path: Path | None) -> None:
    """Refuse to write over a table in which somebody has decided something.

    Raises:
        ConfigError: there is one.
    """
    if path is not None:
        check_nothing_lost(path, _decided)


def _decided(table: Table) -> int:
    """Count the rows of a table of decisions that do not keep their image as it is."""
    if "decision" not in table.header:
        return 0
    cells = table.column(table.header.index("decision"))
    return sum(cell.strip().casefold() not in ("", KEEP) for cell in cells)


def write_page(answer: Answer, path: Path, display: Display) -> int:
    """Write the page of doubtful labels; return how many images it shows.

    Raises:
        ResourceError: the file cannot be written.
        ImageError: an image cannot be read any more.
    """
    shown = answer.doubtful[:MOST_SHOWN]
    decided = {row[0]: row for row in answer.rows()}
    with display.bar("thumbnails", len(shown)) as bar:
        images = []
        for image in shown:
            images.append(_on_page(answer, image, decided[image.sample.name][-1]))
            bar.advance_by(1)
    names = {image.name for image in images}
    page = LabelsPage(
        title=answer.experiment.config.data.path,
        images=images,
        all_images=len(answer.images),
        doubtful=len(answer.doubtful),
        flagged=len(answer.flagged),
        class_names=answer.index.class_names,
        header=COLUMNS,
        others=[row for name, row in decided.items() if row[-1] != KEEP and name not in names],
        alike=answer.labels_of_alike(),
        several=answer.index.task.multilabel,
    )
    write_file(path, labels_page(page))
    return len(images)


def _on_page(answer: Answer, image: JudgedImage, decision: str) -> DoubtfulImage:
    index, experiment = answer.index, answer.experiment
    return DoubtfulImage(
        name=image.sample.name,
        split=image.sample.split,
        label=image.label,
        likely=image.likely,
        doubt=image.doubt,
        flagged=image.flagged,
        decision=decision,
        thumbnail=load_thumbnail(index, image.sample, experiment.limits),
        address=address_of(index, image.sample.name),
    )
