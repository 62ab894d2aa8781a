"""Read the data of a config: which images there are, what they are, and whether they can be read."""

from dataclasses import dataclass
from pathlib import Path

from finetune.choices import Kind, Monitor
from finetune.config.config import Config
from finetune.config.values import FoldConfig
from finetune.data.images import ImageLimits, parse_colour
from finetune.data.index import ImageIndex
from finetune.data.indexing.build import list_images, split_images
from finetune.data.indexing.find_images import listing_bar
from finetune.data.indexing.hold_out import group_shares
from finetune.data.quality.scan import check_images
from finetune.data.quality.scan_cache import ScanMemory
from finetune.data.split import Fold
from finetune.experiment.data_options import folder_options, table_columns
from finetune.machine.collection import no_collection
from finetune.notes import Note, as_warnings
from finetune.progress import NewBar, no_bar
from finetune.text import counted, printable


@dataclass(frozen=True)
class ImageData:
    """The images of a config, each of them known to be readable."""

    index: ImageIndex
    limits: ImageLimits
    notes: tuple[Note, ...] = ()
    """What was found."""


def read_data(config: Config, new_bar: NewBar = no_bar) -> ImageData:
    """Index the images, and look at each of them once.

    Raises:
        ConfigError: it asks for what these data cannot have.
        DataError: no images of classes, or some that cannot be read.
    """
    data, limits = config.data, image_limits(config)
    memory = ScanMemory.asked_ahead(Path(data.path), limits)
    with listing_bar(new_bar):
        index = read_index(config)
    with new_bar("checking images", len(index.samples)) as bar, no_collection():
        index = check_images(
            index,
            limits,
            on_bad=data.on_bad_image,
            max_bad_fraction=data.max_bad_fraction,
            progress=lambda done, total: bar.advance_to(done),
            memory=memory,
        )
    return ImageData(index, limits, (*as_warnings(index.warnings), *map(Note, data_lines(config, index))))


def data_lines(config: Config, index: ImageIndex) -> list[str]:
    """Say what the data are: the metadata, how many images of how many classes, and how they are split."""
    counts = [f"{index.count(split):,} {split}" for split in ("train", "val", "test") if index.count(split)]
    labels = f", {index.labels_per_image:.2g} an image" if index.task.multilabel else ""
    classes = f"{counted(len(index.class_names), 'class', 'classes')}{labels}"
    lines = [*metadata_lines(index), f"data    {config.data.path}: {classes}, images: {', '.join(counts)}"]
    lines += [*layout_lines(index), *correction_lines(index)]
    shares = group_shares(index)
    return lines if shares is None else [*lines, f"split   by group: {shares}"]


def layout_lines(index: ImageIndex) -> list[str]:
    """Say what the data were taken for, and how many images are excluded; nothing of built-in ones."""
    layout = index.layout
    if layout is None or layout.kind == "built-in":
        return []
    excluded = [one for one in layout.left_out if one.why.startswith("data.exclude")]
    return [f"layout  {layout.line()}", *(f"exclude {counted(o.count, o.what)} ({o.why})" for o in excluded)]


def correction_lines(index: ImageIndex) -> list[str]:
    """Say how many labels were corrected, if a table was named."""
    return [] if index.corrections is None else [f"corrections: {index.corrections}"]


def image_limits(config: Config) -> ImageLimits:
    """Take from the config what an image file may be."""
    data = config.data
    return ImageLimits(data.max_pixels, data.sixteen_bit, parse_colour(data.background))


@no_collection()
def read_index(config: Config) -> ImageIndex:
    """Index the images that the config names, and split them; open none."""
    data = config.data
    val = Fold(data.val.fold, data.val.of) if isinstance(data.val, FoldConfig) else data.val
    index = list_images(
        data.path,
        val=val,
        case_variants=data.case_variants,
        columns=table_columns(data),
        image_folder=data.image_folder,
        folders=folder_options(data),
    )
    index = split_images(
        index,
        data.path,
        val=val,
        seed=config.seed if data.split_seed is None else data.split_seed,
        images_per_class=data.images_per_class,
        corrections=data.corrections,
        excluded=data.exclude,
    )
    resolve_auto(config, index)  # report what cannot be before the images are looked at
    return index


def resolve_auto(config: Config, index: ImageIndex) -> Config:
    """Return the config with the loss and the monitor that the data need where it says `auto`.

    Raises:
        ConfigError: it asks for what these data cannot have.
    """
    task = index.task
    if config.data.balance == "sampler":
        task.require_one_class(
            f"data.balance: sampler shows images by their class, and those of {printable(config.data.path)} "
            "may have several; write loss, or none."
        )
    loss = config.loss.model_copy(update={"name": task.loss_name(config.loss.name, config.data.path)})
    monitor = task.default_monitor if config.monitor == "auto" else config.monitor
    return config.model_copy(update={"loss": loss, "monitor": monitor})


def resolved_monitor(config: Config) -> Monitor:
    """Return the monitor of a config in which nothing is `auto` any more."""
    assert config.monitor != "auto"
    return config.monitor


def metadata_lines(index: ImageIndex) -> list[str]:
    """Describe each metadata column, a line each."""
    columns = () if index.metadata is None else index.metadata.columns
    return [f"metadata {printable(str(column))}" for column in columns]


def column_kinds(index: ImageIndex) -> dict[str, Kind]:
    """Return whether each metadata column holds categories or numbers."""
    return {} if index.metadata is None else index.metadata.kinds
