"""`finetune.load` and `finetune.Model`: a trained model in Python."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from finetune.api.images import ImageLike, find_images, is_one
from finetune.api.metadata import MetadataLike, apply_metadata
from finetune.api.prediction import Prediction, from_command
from finetune.api.terms import python_terms
from finetune.choices import DeviceName, ExportFormat, ExportPrecision, OnBad, Split
from finetune.commands.evaluate.evaluate import evaluate_trained
from finetune.commands.predict.inputs import add_metadata
from finetune.commands.predict.predict import classify, preprocess
from finetune.display import Display
from finetune.errors import ConfigError, DataError
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.metrics.score import Scores
from finetune.notes import as_warnings
from finetune.runs.trained_model import TrainedModel, load_trained, unfinished_warning
from finetune.text import counted

_LISTED = 5


def load(run: str | os.PathLike[str], *, device: DeviceName = "auto") -> "Model":
    """Load the best model of a run, in eval mode; warn where its training is not done.

    Args:
        run: directory of the run, or a `Run`.
        device: where to compute: auto, cpu, cuda or mps.

    Raises:
        RunError: not a run, or one without a model.
        CheckpointError: its files are damaged, or made by another version.
        MachineError: there is no such device.
    """
    keep_large_buffers()
    with python_terms():
        trained = load_trained(Path(run), choose_device(device))
    if warning := unfinished_warning(trained):
        warnings.warn(warning, stacklevel=2)
    return Model(trained)


class Model:
    """A trained model: its classes, its module, and how it reads images."""

    def __init__(self, trained: TrainedModel) -> None:
        """Wrap a model that `load_trained` has loaded."""
        self._trained = trained

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the module's outputs."""
        return self._trained.class_names

    @property
    def thresholds(self) -> dict[str, float] | None:
        """The probability from which on an image has each class; None for a model that gives one class."""
        given = self._trained.calibrated_thresholds
        return None if given is None else dict(zip(self.classes, given, strict=True))

    @property
    def temperature(self) -> float:
        """What the logits of `module` are divided by to give calibrated probabilities."""
        return self._trained.temperature

    @property
    def metadata_columns(self) -> tuple[str, ...]:
        """The metadata that it takes beside an image; empty for most models."""
        return () if self._trained.metadata is None else tuple(self._trained.metadata.names)

    @property
    def tta_views(self) -> int:
        """How many views of each image `tta=True` averages over, which is its price in forward passes."""
        return self._trained.with_tta(True).views

    @property
    def module(self) -> nn.Module:
        """The network, in eval mode: images (N, 3, H, W), uint8 or float in 0–255, to logits (N, C).

        Normalisation and precision are inside; `preprocess` makes such images. A model with metadata takes
        tensors of it as well.
        """
        return self._trained.model

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self._trained.device

    @property
    def directory(self) -> Path:
        """The run directory that it was loaded from."""
        return self._trained.run.directory

    def preprocess(self, image: ImageLike) -> Tensor:
        """Resize and crop an image for the module: uint8 (3, S, S), or (N, 3, S, S) of several images.

        Raises:
            DataError: it is no image, or cannot be read.
        """
        pixels = [preprocess(one, self._trained) for one in find_images(image, self._trained)]
        return pixels[0] if is_one(image) else torch.stack(pixels)

    @overload
    def predict(
        self,
        images: Image.Image,
        *,
        top_k: int | None = None,
        metadata: MetadataLike | None = None,
        tta: bool = False,
        on_bad_image: OnBad = "stop",
        quiet: bool = False,
    ) -> Prediction: ...

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        images: str | os.PathLike[str] | NDArray[np.uint8] | Tensor,
        *,
        top_k: int | None = None,
        metadata: MetadataLike | None = None,
        tta: bool = False,
        on_bad_image: OnBad = "stop",
        quiet: bool = False,
    ) -> Prediction | Any: ...

    @overload
    def predict(
        self,
        images: Sequence[ImageLike],
        *,
        top_k: int | None = None,
        metadata: MetadataLike | None = None,
        tta: bool = False,
        on_bad_image: OnBad = "stop",
        quiet: bool = False,
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        top_k: int | None = None,
        metadata: MetadataLike | None = None,
        tta: bool = False,
        on_bad_image: OnBad = "stop",
        quiet: bool = False,
    ) -> Prediction | list[Prediction]:
        """Classify an image, or several.

        Args:
            images: a path, a Pillow image, an array uint8 (H, W, 3), a tensor uint8 (3, H, W), for one
                prediction; a folder, a table, a batch of arrays (N, H, W, 3) or tensors (N, 3, H, W), or a
                list of any of these, for a list of them.
            top_k: of how many classes to give the probability; by default of all.
            metadata: for a model with metadata columns: values by column for all images, a list of such
                mappings, one for each image, or the path of a table. What is left out counts as missing.
            tta: answer by the mean over several views of each image (test-time augmentation).
            on_bad_image: `stop` raises for images that cannot be read; `skip` gives these an `error`.
            quiet: show no progress.

        Raises:
            DataError: what is no image or cannot be read; a folder or table without images.
            ConfigError: metadata that the model does not take.
        """
        _refuse_top_k(top_k)
        one = is_one(images)
        display = Display(sys.stdout, quiet=quiet or one)
        with python_terms():
            inputs, options = apply_metadata(find_images(images, self._trained), metadata, self._trained)
            inputs, unlisted = add_metadata(inputs, options, self._trained)
            display.show(as_warnings(unlisted))
            model, top_k = self._trained.with_tta(tta), top_k or len(self.classes)
            answers = classify(model, inputs, top_k=top_k, new_bar=display.bar)
        predictions = [from_command(answer) for answer in answers]
        if on_bad_image == "stop":
            _refuse_unreadable(predictions)
        return predictions[0] if one else predictions

    def evaluate(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        split: Split = "val",
        tta: bool = False,
        quiet: bool = False,
    ) -> Scores:
        """Score the model on images of its run, or on others, as `finetune.evaluate` does."""
        with python_terms():
            return evaluate_trained(
                self._trained.with_tta(tta),
                None if data is None else Path(data),
                split=split,
                display=Display(sys.stdout, quiet=quiet),
            ).scores

    def export(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        format: ExportFormat = "onnx",
        precision: ExportPrecision = "float32",
        features: bool = False,
    ) -> Path:
        """Write the model as a file that runs without finetune, as `finetune export` does; return its path.

        Args:
            output: where to write it; None writes into the run's directory.
            format: `onnx`, `torch` (a `.pt2` program), or `timm` (a state dict).
            precision: what an ONNX file computes in.
            features: whether an ONNX file or a program also returns features.

        Raises:
            ConfigError: a format that this model cannot have, or that needs something not installed.
            MachineError: the file answers otherwise than the model; it is not left behind.
        """
        from finetune.commands.export.export import ExportOptions, export

        path = None if output is None else Path(output)
        with python_terms():
            options = ExportOptions(format, path, precision, features)
            return export(Path(self.directory), options, Display(sys.stdout, quiet=True)).file

    def __repr__(self) -> str:
        listed = ", ".join(self.classes[:_LISTED]) + (", …" if len(self.classes) > _LISTED else "")
        arch, number = self._trained.model.spec.arch, counted(len(self.classes), "class", "classes")
        return f"<finetune.Model {arch} from {self.directory}: {number} ({listed})>"


def _refuse_top_k(top_k: int | None) -> None:
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k: expected a whole number of at least 1, or None, got {top_k}")


def _refuse_unreadable(predictions: Sequence[Prediction]) -> None:
    unread = [f"{one.image}: {one.error}" for one in predictions if one.error is not None]
    if unread:
        more = [f"and {len(unread) - _LISTED:,} more"] if len(unread) > _LISTED else []
        hint = 'on_bad_image="skip" gives these an error in place of labels.'
        raise DataError("\n".join([*unread[:_LISTED], *more, hint]))
