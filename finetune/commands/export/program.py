"""What is exported of a run: its model with everything around it, and what the file says of itself."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.commands.export.pictures import Picture
from finetune.commands.predict.inputs import PredictionInput
from finetune.commands.predict.predict import classify
from finetune.commands.predict.prediction import Prediction
from finetune.data.metadata import CategoryColumn, Metadata
from finetune.model.deployed import IMAGES, DeployedClassifier, MetadataEncoder
from finetune.runs.trained_model import TrainedModel
from finetune.version import VERSION


def in_float32(trained: TrainedModel) -> TrainedModel:
    """Return a model that computes in float32: sums in bfloat16 differ too much to compare with."""
    trained.model.set_precision("float32")
    return replace(trained, device=torch.device("cpu"))


def program_of(trained: TrainedModel, *, features: bool) -> DeployedClassifier:
    """Return the program that a file holds."""
    metadata = trained.metadata
    encoder = None
    if metadata is not None:
        encoder = MetadataEncoder(
            tuple(isinstance(column, CategoryColumn) for column in metadata.columns),
            tuple(column.mean for column in metadata.numbers),
            tuple(column.std for column in metadata.numbers),
        )
    return DeployedClassifier(
        trained.model,
        several=trained.task.multilabel,
        temperature=trained.temperature,
        metadata=encoder,
        features=features,
    ).eval()


def input_names(metadata: Metadata | None) -> list[str]:
    """Return what the inputs for the columns of metadata are called."""
    return [] if metadata is None else [f"metadata.{name}" for name in metadata.names]


def column_types(metadata: Metadata | None) -> dict[str, torch.dtype]:
    """Return the type of each column of metadata, by the name of its input."""
    columns = () if metadata is None else metadata.columns
    kinds = [torch.int64 if isinstance(column, CategoryColumn) else torch.float32 for column in columns]
    return dict(zip(input_names(metadata), kinds, strict=True))


def inputs_of(trained: TrainedModel, pictures: Sequence[Picture]) -> dict[str, NDArray[Any]]:
    """Return what goes into a file for pictures of one size."""
    inputs: dict[str, NDArray[Any]] = {IMAGES: np.stack([picture.pixels for picture in pictures])}
    metadata = trained.metadata
    if metadata is None:
        return inputs
    columns = zip(input_names(metadata), metadata.columns, metadata.positions, strict=True)
    for number, (name, column, places) in enumerate(columns):
        cells = [picture.metadata[number] for picture in pictures]
        if isinstance(column, CategoryColumn):
            inputs[name] = np.array([places.get(cell, 0) for cell in cells], dtype=np.int64)
        else:
            numbers = [float(cell) if cell else float("nan") for cell in cells]
            inputs[name] = np.array(numbers, dtype=np.float32)
    return inputs


def predicted(trained: TrainedModel, pictures: Sequence[Picture]) -> list[Prediction]:
    """Return what `finetune predict` answers for pictures, with the probability of every class."""
    inputs = [
        PredictionInput(
            Path(picture.shape),
            pixels=torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1),
            metadata=picture.metadata,
        )
        for picture in pictures
    ]
    return classify(trained, inputs, top_k=len(trained.class_names))


def properties_of(trained: TrainedModel) -> dict[str, str]:
    """Return what a file says of itself: classes, thresholds, how pictures are to be read, and by whom."""
    thresholds, limits = trained.calibrated_thresholds, trained.limits
    decode = {
        "orientation": "exif",
        "mode": "RGB",
        "background": list(limits.background),
        "draft": trained.transform.shrink_to,
        "sixteen_bit": limits.sixteen_bit,
        "max_pixels": limits.max_pixels,
    }
    values: Mapping[str, Any] = {
        "class_names": list(trained.class_names),
        "thresholds": None if thresholds is None else list(thresholds),
        "decode": decode,
        "metadata": [] if trained.metadata is None else _columns(trained.metadata),
    }
    return {name: json.dumps(value) for name, value in values.items()} | {"finetune_version": VERSION}


def _columns(metadata: Metadata) -> list[dict[str, Any]]:
    """Describe the inputs for the columns of metadata."""
    return [
        {"input": name, "column": column.name, "categories": list(column.categories)}
        if isinstance(column, CategoryColumn)
        else {"input": name, "column": column.name}
        for name, column in zip(input_names(metadata), metadata.columns, strict=True)
    ]
