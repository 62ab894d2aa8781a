"""Metadata beside images, as Python programs hold it: values for all images, or for each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from finetune.commands.predict.inputs import MetadataOptions, PredictionInput, read_metadata_options
from finetune.errors import ConfigError
from finetune.runs.trained_model import TrainedModel
from finetune.text import counted

MetadataLike = Mapping[str, object] | Sequence[Mapping[str, object]] | str | os.PathLike[str]
"""Values by column for all images; a list of such mappings, one for each image; or the path of a table."""


def apply_metadata(
    inputs: Sequence[PredictionInput], metadata: MetadataLike | None, trained: TrainedModel
) -> tuple[list[PredictionInput], MetadataOptions]:
    """Return the images with the values of each, and the values of all.

    Raises:
        ConfigError: metadata that the model does not take, or not one mapping for each image.
        DataError: a table that cannot be read.
    """
    if metadata is None:
        return list(inputs), MetadataOptions()
    if trained.metadata is None:
        raise ConfigError(f"metadata: {trained.run.directory} was trained without metadata; leave it out.")
    if isinstance(metadata, str | os.PathLike):
        return list(inputs), read_metadata_options([os.fspath(metadata)], trained)
    if isinstance(metadata, Mapping):
        return list(inputs), MetadataOptions(of_all=_cells(metadata, trained.metadata.names))
    if len(metadata) != len(inputs):
        raise ConfigError(
            f"metadata: {counted(len(metadata), 'mapping')} for {counted(len(inputs), 'image')}; "
            "expected one for each image, or a single mapping for all."
        )
    names = trained.metadata.names
    each = [replace(one, cells=_cells(row, names)) for one, row in zip(inputs, metadata, strict=True)]
    return each, MetadataOptions()


def _cells(row: Mapping[str, object], names: Sequence[str]) -> dict[str, str]:
    """Write values as the cells of a table; None and NaN are missing."""
    unknown = [name for name in row if name not in names]
    if unknown:
        raise ConfigError(
            f"metadata: the model takes no {unknown[0]!r}; its columns are {', '.join(map(repr, names))}."
        )
    return {name: "" if value is None or value != value else str(value) for name, value in row.items()}
