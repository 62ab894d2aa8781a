"""The model card that lies beside an exported file: what it is, what it knows, how good, how to repeat it."""

from collections.abc import Mapping
from typing import Any

from finetune.choices import Split
from finetune.errors import CheckpointError
from finetune.runs import REPORT, STARTED, WEIGHTS
from finetune.runs.digests import read_list
from finetune.runs.trained_model import TrainedModel
from finetune.text import counted, printable
from finetune.version import VERSION

_LISTED = 50  # classes
_FILES, _FILE = "Files", "### `"


def model_card(trained: TrainedModel, files: Mapping[str, str]) -> str:
    """Write a model card in Markdown.

    Args:
        trained: the model.
        files: for each exported file by its name, how it compares and is used, in Markdown.
    """
    report, started = _read(trained, REPORT), _read(trained, STARTED)
    parts = {
        "What it is": _network(trained, started),
        "Classes": [_classes(trained)],
        "Data": _data(trained, report, started),
        "Scores": _scores(trained, report),
        "Limits": _limits(trained, report),
        _FILES: [f"{_FILE}{name}`\n\n{text}\n" for name, text in files.items()],
        "How to repeat it": [
            "Put this into `config.yaml`, and run `finetune train config.yaml`:\n",
            f"```yaml\n{trained.run.read_config().rstrip()}\n```",
        ],
    }
    head = (
        f"# {printable(trained.run.directory.name)}\n\n"
        f"An image classifier, trained with finetune {VERSION}.\n"
    )
    return head + "".join(f"\n## {title}\n\n{chr(10).join(lines)}\n" for title, lines in parts.items())


def files_of_card(card: str, trained: TrainedModel) -> dict[str, str] | None:
    """Return what a card that was written earlier says of each file; None where it is of another model."""
    _, found, rest = card.partition(f"\n## {_FILES}\n")
    if not found or _model(trained) not in card:
        return None
    sections = rest.split("\n## ")[0].split(f"\n{_FILE}")[1:]
    return {name: text.strip() for name, _, text in (section.partition("`\n") for section in sections)}


def _network(trained: TrainedModel, started: Mapping[str, Any]) -> list[str]:
    how, arch = trained.model.preprocessing, trained.model.spec.arch
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    side = how.image_size
    return [
        f"- Network: {arch}, {counted(parameters, 'parameter')}",
        _model(trained),
        f"- Pretrained weights: {_weights(started)}",
        f"- Images: RGB, the shorter side resized to {how.resize_size} pixels ({how.interpolation}), the "
        f"centre of {side} × {side} pixels cut out",
        *_metadata(trained),
    ]


def _model(trained: TrainedModel) -> str:
    return f"- Model: `{WEIGHTS}` of the run, sha256 {read_list(trained.run.directory)[WEIGHTS]}"


def _classes(trained: TrainedModel) -> str:
    names = [printable(name) for name in trained.class_names]
    more = f" … and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    several = ", of which an image may have several or none" if trained.task.multilabel else ""
    return f"{counted(len(names), 'class', 'classes')}{several}: {', '.join(names[:_LISTED])}{more}"


def _read(trained: TrainedModel, name: str) -> Mapping[str, Any]:
    """Return what a file of the run holds; nothing where it is not there, as beside a copied model."""
    try:
        value = trained.run.read_json(name)
    except (CheckpointError, OSError):
        return {}
    return value if isinstance(value, dict) else {}


def _weights(started: Mapping[str, Any]) -> str:
    origin = started.get("weights")
    if not isinstance(origin, dict):
        return "none, or not recorded"
    parts = [str(origin[key]) for key in ("kind", "name", "version") if origin.get(key)]
    digest = origin.get("sha256")
    return " ".join(parts) + (f" (sha256 {digest})" if digest else "")


def _metadata(trained: TrainedModel) -> list[str]:
    columns = () if trained.metadata is None else trained.metadata.columns
    return (
        [f"- Metadata beside each image: {'; '.join(printable(str(c)) for c in columns)}"] if columns else []
    )


def _data(trained: TrainedModel, report: Mapping[str, Any], started: Mapping[str, Any]) -> list[str]:
    rows = trained.run.read_split()
    splits: tuple[Split, ...] = ("train", "val", "test")
    counts = [f"{sum(row.split == split for row in rows):,} {split}" for split in splits]
    layout = started.get("layout") or {}
    left_out = [
        f"- Left out: {one['count']} × {printable(one['what'])}: {printable(one['why'])}"
        for one in layout.get("left_out", [])
    ]
    bad = len(report.get("bad_images", []))
    return [
        f"- Images: {', '.join(counts)}",
        *([f"- Taken for: {layout['kind']}"] if "kind" in layout else []),
        *left_out,
        *([f"- Skipped because they cannot be read: {counted(bad, 'image')}"] if bad else []),
    ]


def _scores(trained: TrainedModel, report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Of the best model ({trained.best}).\n",
        "| images | accuracy | macro F1 | mAP | loss |",
        "|---|---|---|---|---|",
    ]
    for split in ("val", "test"):
        scores = report.get(split)
        if isinstance(scores, dict):
            lines.append(
                f"| {split} | {scores['accuracy']:.2%} | {scores['macro_f1']:.4f} | {scores['map']:.4f} | "
                f"{scores['loss']:.4f} |"
            )
    return lines


def _limits(trained: TrainedModel, report: Mapping[str, Any]) -> list[str]:
    lines = [
        "- It gives an answer to any picture, also to one of something else than its classes.",
        "- Its scores are of images from the same sources as those it was trained on.",
    ]
    calibration = report.get("calibration")
    if isinstance(calibration, dict):
        error = calibration["expected_calibration_error"]["after"]
        lines.append(f"- Its probabilities are off by {error:.1%} on average (validation images).")
    lines += [
        f"- Found in training: {finding['trouble']}: {finding['evidence']}"
        for finding in report.get("diagnosis", [])
    ]
    if trained.known is None:
        lines.append("- Nothing is recorded of what is unlike the images it was trained on.")
    return lines


ONNX_USE = """\
Input `images`: uint8 `(N, H, W, 3)`, RGB, of any size, the same for all of a batch. Output `probabilities`:
float32 `(N, C)`, calibrated. The metadata of the file has `class_names` (JSON), `thresholds`, `metadata`
(further inputs), and `decode`: how an image file is to be read. The client in finetune's docs/export.md does
that with onnxruntime and Pillow alone."""

TORCH_USE = """\
```python
import torch
program = torch.export.load("{file}").module()
probabilities = program(images)  # uint8 (N, H, W, 3), RGB, of any size
```"""

TIMM_USE = """\
```python
import timm
from safetensors.torch import load_file
from torch import nn

{lines}
```
It takes images resized to {resize} pixels on the shorter side, of which the centre of {size} × {size} is cut,
as floats 0–1 with mean {mean} and deviation {std}, and gives logits; divided by {temperature:.4g} they are
calibrated."""
