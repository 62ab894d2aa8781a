"""Which images to predict, and the metadata of each beside its pixels."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from finetune.choices import TABLE_SUFFIXES
from finetune.data.data_layout import Layout
from finetune.data.image_files import is_folder
from finetune.data.indexing.find_images import find_images
from finetune.data.indexing.fit_metadata import NewCells, rows_of_new_images
from finetune.data.indexing.open_table import OpenTable, open_table
from finetune.data.table import Columns, ImageFiles, Table, image_names, is_table, read_table
from finetune.data.table.encoding import fitting_encoding
from finetune.data.table.row_images import image_column
from finetune.errors import ConfigError, DataError
from finetune.notes import Note, as_warnings
from finetune.runs.trained_model import TrainedModel
from finetune.text import counted, expanded, printable


@dataclass(frozen=True)
class PredictionInput:
    """An image to classify."""

    path: Path
    cells: Mapping[str, str] = field(default_factory=dict)
    """its metadata, by the name of the column"""
    place: str = ""
    """where a table says so: `labels.csv, line 7`"""
    pixels: Image.Image | Tensor | None = None
    """the image itself, if it is in memory: any Pillow image, or uint8 (3, H, W); else `path` is read"""
    metadata: tuple[str, ...] = ()
    """the cells that the model takes, in its order; `add_metadata` puts them there"""


@dataclass(frozen=True)
class PredictionSource:
    """What was found in a folder or table, or one image."""

    inputs: list[PredictionInput]
    line: str = ""
    """what it was taken for; empty of an image"""


@dataclass(frozen=True)
class MetadataOptions:
    """What `--metadata` says: of all images, and of some."""

    of_all: Mapping[str, str] = field(default_factory=dict)
    of_some: Mapping[str, PredictionInput] = field(default_factory=dict)
    """by absolute path"""


def read_inputs(
    paths: Sequence[Path], trained: TrainedModel, given: Sequence[str]
) -> tuple[list[PredictionInput], list[Note]]:
    """Return images, all images below folders, and those that tables list, in the order given; and notes.

    The notes say what folders and tables were taken for, and warn of metadata.

    `column=value` holds for all images, and goes before the tables of `--metadata`; these go before the table
    that lists an image.

    Args:
        paths: images, folders and tables.
        trained: the run that is to classify them.
        given: what `--metadata` was given: tables, or `column=value`.

    Raises:
        DataError: a folder or table without images, or a cell that is no number in a column of numbers.
        ConfigError: metadata that the model does not take.
    """
    options = read_metadata_options(given, trained)
    sources = [read_source(path, trained) for path in paths]
    inputs, warnings = add_metadata([one for source in sources for one in source.inputs], options, trained)
    return inputs, [*(Note(source.line) for source in sources if source.line), *as_warnings(warnings)]


def add_metadata(
    inputs: Sequence[PredictionInput], options: MetadataOptions, trained: TrainedModel
) -> tuple[list[PredictionInput], list[str]]:
    """Return the images with their metadata, and warnings of what is missing or new.

    Raises:
        DataError: a cell that is no number in a column of numbers.
    """
    if trained.metadata is None:
        return list(inputs), []
    inputs = [_with_metadata(one, options) for one in inputs]
    names = {name for one in inputs for name in one.cells}
    given = [NewCells(_name_of(one), one.cells) for one in inputs]
    source = "what was given (--metadata gives it)"
    rows, warnings = rows_of_new_images(trained.metadata, given, names, source)
    listed = options.of_some
    unlisted = [one for one in inputs if listed and os.path.abspath(one.path) not in listed]
    if unlisted:
        warnings.append(f"{len(unlisted):,} of {len(inputs):,} images are not in the tables of --metadata")
    return [replace(one, metadata=row) for one, row in zip(inputs, rows, strict=True)], warnings


def read_source(given: Path, trained: TrainedModel) -> PredictionSource:
    """Return an image itself, all images below a folder, or those that a table lists.

    Raises:
        DataError: a folder or table without images.
    """
    if is_folder(given):
        names = find_images(given, "").images
        opened = None if names else open_table(given, trained.columns)
        if not names and opened is None:
            raise DataError(f"No images in {given}.")
        if opened is not None:
            return _of_table(opened, trained)
        line = f"layout  folder: {counted(len(names), 'image')} in and below {printable(str(given))}"
        return PredictionSource([PredictionInput(given / name) for name in names], line)
    if is_table(given):
        return _of_table(_opened(given, trained), trained, expanded(given).parent)
    return PredictionSource([PredictionInput(given)])


def _of_table(opened: OpenTable, trained: TrainedModel, folder: Path | None = None) -> PredictionSource:
    inputs, table = _rows(opened, trained, folder), opened.table
    column = table.header[image_column(table, opened.files, _columns(table, trained))]
    rows = f"{counted(len(inputs), 'row')} of {table.path}"
    layout = Layout("table", image_column=column, encoding=table.encoding, notes=(rows,))
    return PredictionSource(inputs, f"layout  {layout.line()}")


def _columns(table: Table, trained: TrainedModel) -> Columns:
    return trained.columns if trained.columns.image in table.header else Columns()


def _rows_of(path: Path, trained: TrainedModel) -> list[PredictionInput]:
    """Return the images of a table, with those of its cells that the model takes."""
    return _rows(_opened(path, trained), trained, expanded(path).parent)


def _opened(path: Path, trained: TrainedModel) -> OpenTable:
    files = ImageFiles(expanded(path).parent.absolute())
    encoding = fitting_encoding(expanded(path), trained.columns.encoding)
    return OpenTable(read_table(path, files=files, encoding=encoding), files)


def _rows(opened: OpenTable, trained: TrainedModel, folder: Path | None = None) -> list[PredictionInput]:
    """Return the images of a table that is open, as paths in `folder` if it is called otherwise."""
    table, files = opened.table, opened.files
    folder = folder or files.root or Path()
    names = () if trained.metadata is None else trained.metadata.names
    there = {name: table.header.index(name) for name in names if name in table.header}
    columns = _columns(table, trained)
    return [
        PredictionInput(
            folder / name,
            {column: cells[position].strip() for column, position in there.items()},
            f"{table}, {table.place(row)}",
        )
        for row, (name, cells) in enumerate(zip(image_names(table, files, columns), table.rows, strict=True))
    ]


def read_metadata_options(given: Sequence[str], trained: TrainedModel) -> MetadataOptions:
    """Read what `--metadata` was given."""
    if given and trained.metadata is None:
        raise ConfigError(
            f"--metadata {given[0]}: {trained.run.directory} was trained without metadata; leave it out."
        )
    names = () if trained.metadata is None else trained.metadata.names
    of_all: dict[str, str] = {}
    of_some: dict[str, PredictionInput] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals and name in names:
            of_all[name] = value.strip()
        elif is_table(text):
            rows = _rows_of(Path(text), trained)
            of_some |= {os.path.abspath(one.path): one for one in rows}
        else:
            raise ConfigError(
                f"--metadata {text}: expected a table ({', '.join(TABLE_SUFFIXES)}) or COLUMN=VALUE; the "
                f"model takes {', '.join(map(printable, names))}."
            )
    return MetadataOptions(of_all, of_some)


def _with_metadata(one: PredictionInput, options: MetadataOptions) -> PredictionInput:
    more = options.of_some.get(os.path.abspath(one.path), PredictionInput(one.path))
    own = {name: cell for name, cell in more.cells.items() if cell or name not in one.cells}
    return replace(one, cells={**one.cells, **own, **options.of_all}, place=more.place or one.place)


def _name_of(one: PredictionInput) -> str:
    return printable(str(one.path)) + (f" ({one.place})" if one.place else "")
