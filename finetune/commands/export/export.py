"""The story of `finetune export`: a file that answers as `finetune predict` does, without finetune."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.choices import ExportFormat, ExportPrecision
from finetune.commands.evaluate.evaluate import own_index
from finetune.commands.export.card import ONNX_USE, TIMM_USE, TORCH_USE, files_of_card, model_card
from finetune.commands.export.compare import Answer, Parity, compare
from finetune.commands.export.pictures import examples_to_calibrate, pictures_of, pictures_to_try
from finetune.commands.export.program import (
    column_types,
    in_float32,
    inputs_of,
    program_of,
    properties_of,
)
from finetune.display import Display
from finetune.errors import ConfigError, MachineError
from finetune.machine.files import reported_disk_errors, staged, try_writing, write_file
from finetune.model.onnx_export import (
    OnnxModel,
    halve_onnx,
    quantize_onnx,
    require_exporter,
    require_onnx,
    write_onnx,
)
from finetune.model.program_export import TorchProgram, write_program
from finetune.model.timm_export import load_into_timm, timm_export
from finetune.runs.trained_model import TrainedModel, load_trained, unfinished_warning

LARGEST: dict[ExportPrecision, float] = {"float32": 1e-3, "float16": 1e-2}
"""difference of a probability from that of `predict` with which a file is left; of int8 accuracy decides"""
CALIBRATED_ON = 100
"""training images that int8's ranges are taken from"""

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch": ".pt2", "timm": ".safetensors"}
CARD = "model_card.md"


@dataclass(frozen=True)
class ExportOptions:
    """What is to be written."""

    format: ExportFormat
    output: Path | None = None
    """None for a file in the run's directory"""
    precision: ExportPrecision = "float32"
    features: bool = False
    most_loss: float = 2.0
    """points of accuracy that int8 may lose"""


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares."""

    file: Path
    card: Path
    format: ExportFormat
    precision: ExportPrecision
    parity: Parity
    seconds: float
    use: str
    """how it is used, in Markdown"""
    accuracy: dict[str, float] | None = None
    """of validation images, 0–1, by precision; None unless it was measured"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as `export --json` documents it."""
        return {
            "file": str(self.file),
            "card": str(self.card),
            "format": self.format,
            "precision": self.precision,
            "bytes": self.file.stat().st_size,
            "pictures": self.parity.pictures,
            "largest_difference": self.parity.difference,
            "other_classes": self.parity.other_classes,
            "accuracy": self.accuracy,
            "seconds": round(self.seconds, 3),
        }


def export(run_dir: Path, options: ExportOptions, display: Display) -> Exported:
    """Write the best model of a run as a file, and compare its answers with those of `predict`.

    Raises:
        RunError: not a finished run.
        ConfigError: a format that this model cannot have, or that needs something that is not installed.
        MachineError: the file answers otherwise; it is not left behind.
        ResourceError: the file cannot be written.
    """
    _check(options)
    began = time.perf_counter()
    trained = in_float32(load_trained(run_dir, torch.device("cpu")))
    if warning := unfinished_warning(trained):
        display.warn(warning)
    path = options.output or trained.run.directory / f"model{_part(options)}{SUFFIXES[options.format]}"
    card, files = _card_beside(path, trained)
    try_writing(path)
    try_writing(card)
    with _left_only_if_right(path) as unfinished:
        parity, use, accuracy = _WRITERS[options.format](trained, unfinished, path.name, options, display)
        _check_parity(parity, options)
    write_file(card, model_card(trained, files | {path.name: f"Checked: {parity}\n\n{use}"}))
    seconds = time.perf_counter() - began
    return Exported(path, card, options.format, options.precision, parity, seconds, use, accuracy)


def _card_beside(path: Path, trained: TrainedModel) -> tuple[Path, dict[str, str]]:
    """Return where the card of a file belongs, and what it says of other files that still lie there."""
    card = path.with_name(CARD)
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return card, {}
    files = files_of_card(text, trained)
    if files is None:  # the card of another model stays
        return path.with_name(f"{path.stem}_{CARD}"), {}
    return card, {name: text for name, text in files.items() if (path.parent / name).is_file()}


def _check(options: ExportOptions) -> None:
    if options.format == "onnx":
        require_onnx()
        return
    for option, given in (("--precision", options.precision != "float32"), ("--features", options.features)):
        if given and not (option == "--features" and options.format == "torch"):
            raise ConfigError(f"export: {option} is for --format onnx; leave it out.")
    if options.format == "torch":
        require_exporter("torch")


def _check_parity(parity: Parity, options: ExportOptions) -> None:
    """Refuse a file that answers otherwise than the model.

    Raises:
        MachineError: it differs by too much, or in a class.
    """
    largest = LARGEST.get(options.precision)
    if largest is not None and (parity.difference > largest or parity.other_classes):
        another = "--precision float32" if options.precision == "float16" else "another --format"
        raise MachineError(
            f"export: the file answers otherwise than the model ({parity}).\nNo file is left; at most "
            f"{largest:g}, and no other class, is accepted. Try {another}."
        )


def _part(options: ExportOptions) -> str:
    """Return what tells files of a run from each other: `-int8`; nothing for the usual one."""
    timm = "-timm" if options.format == "timm" else ""
    return timm + ("" if options.precision == "float32" else f"-{options.precision}")


@contextmanager
def _left_only_if_right(path: Path) -> Iterator[Path]:
    """Provide a name to write under, which becomes `path` at the end, and vanishes after an error."""
    unfinished = staged(path)
    try:
        yield unfinished
        with reported_disk_errors(path):
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


Written = tuple[Parity, str, dict[str, float] | None]
"""How a file compares, how it is used, and what it is worth where that was measured."""


def _write_onnx(
    trained: TrainedModel, path: Path, name: str, options: ExportOptions, display: Display
) -> Written:
    program = program_of(trained, features=options.features)
    whole = path if options.precision == "float32" else path.with_name(f"{path.name}.float32")
    accuracy = None
    try:
        with display.bar("writing ONNX", 1, "files"), reported_disk_errors(path):
            write_onnx(
                program,
                whole,
                columns=column_types(trained.metadata),
                properties=properties_of(trained),
                features=options.features,
            )
            if options.precision == "float16":
                halve_onnx(whole, path)
        if options.precision == "int8":
            accuracy = _quantize(trained, whole, path, options, display)
    finally:
        if whole != path:
            whole.unlink(missing_ok=True)
    return compare(trained, pictures_to_try(trained), OnnxModel(path).probabilities), ONNX_USE, accuracy


def _quantize(
    trained: TrainedModel, whole: Path, path: Path, options: ExportOptions, display: Display
) -> dict[str, float]:
    """Write the int8 file, and say what both are worth on the validation images.

    Raises:
        MachineError: int8 loses more than is allowed.
    """
    with display.bar("calibrating", CALIBRATED_ON) as bar:
        examples = examples_to_calibrate(trained, CALIBRATED_ON)
        with reported_disk_errors(path):
            quantize_onnx(whole, path, [inputs_of(trained, [one]) for one in examples])
        bar.advance_to(CALIBRATED_ON)
    accuracy = {
        precision: _accuracy(trained, OnnxModel(file).probabilities, display)
        for precision, file in (("float32", whole), ("int8", path))
    }
    lost = 100 * (accuracy["float32"] - accuracy["int8"])
    if lost > options.most_loss:
        enough = np.ceil(10 * lost) / 10
        raise MachineError(
            f"export: int8 has {accuracy['int8']:.2%} of the validation images right, float32 "
            f"{accuracy['float32']:.2%}.\nNo file is left; --most-loss {enough:g} would accept it, "
            "and --precision float16 loses less."
        )
    return accuracy


def _accuracy(trained: TrainedModel, answer: Answer, display: Display) -> float:
    """Return the accuracy of a file on the validation images, 0–1; of several classes the mAP."""
    index = own_index(trained)
    samples = index.of_split("val")
    rows = []
    with display.bar("evaluating val", len(samples)) as bar:
        for picture in pictures_of(trained, index, samples):
            rows.append(torch.from_numpy(answer(inputs_of(trained, [picture]))))
            bar.advance_by(1)
    probabilities = torch.cat(rows).double().clamp(1e-12, 1 - 1e-12)
    logits = probabilities.logit() if trained.task.multilabel else probabilities.log()
    targets = torch.tensor([index.target(sample) for sample in samples])
    scores = trained.task.score(
        logits * trained.temperature, targets, trained.class_names, trained.thresholds
    )
    return scores.map if trained.task.multilabel else scores.accuracy


def _write_torch(
    trained: TrainedModel, path: Path, name: str, options: ExportOptions, display: Display
) -> Written:
    program = program_of(trained, features=options.features)
    with display.bar("writing a program", 1, "files"), reported_disk_errors(path):
        columns = column_types(trained.metadata)
        write_program(program, path, columns=columns, properties=properties_of(trained))
    parity = compare(trained, pictures_to_try(trained), TorchProgram(path).probabilities)
    return parity, TORCH_USE.format(file=name), None


def _write_timm(
    trained: TrainedModel, path: Path, name: str, options: ExportOptions, display: Display
) -> Written:
    from safetensors.torch import save

    exported = timm_export(trained.model)
    network = load_into_timm(exported)
    with reported_disk_errors(path):
        path.write_bytes(save(exported.state, metadata=properties_of(trained)))
    program = program_of(trained, features=False)

    def answer(inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        with torch.inference_mode():
            pixels = program.prepared(torch.from_numpy(inputs["images"]))
            logits = network(program.model.normalised(pixels))
        found: NDArray[Any] = trained.probabilities(logits).numpy()
        return found

    how = trained.model.preprocessing
    use = TIMM_USE.format(
        lines="\n".join(exported.lines(name)),
        size=how.image_size,
        resize=how.resize_size,
        mean=how.mean,
        std=how.std,
        temperature=trained.temperature,
    )
    return compare(trained, pictures_to_try(trained), answer), use, None


_WRITERS = {"onnx": _write_onnx, "torch": _write_torch, "timm": _write_timm}
