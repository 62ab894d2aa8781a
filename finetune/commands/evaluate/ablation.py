"""Metadata ablation: the scores of a trained model where a column is treated as missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.choices import Monitor
from finetune.commands.evaluate.evaluate import eval_loader
from finetune.data.index import ImageIndex
from finetune.data.metadata import metadata_tensors
from finetune.display import Display
from finetune.metrics.score import Scores
from finetune.progress import NewBar
from finetune.runs.trained_model import TrainedModel


@dataclass(frozen=True)
class Ablation:
    """How a model scores on the validation images without some of its metadata."""

    without: tuple[str, ...]
    """Columns that are treated as missing."""
    scores: Scores

    def value(self, metric: Monitor) -> float:
        """Return one of the scores."""
        return float(getattr(self.scores, metric.removeprefix("val_")))

    def to_dict(self, metric: Monitor) -> dict[str, Any]:
        """Return what report.json holds of it."""
        return {"without": list(self.without), "val_loss": self.scores.loss, metric: self.value(metric)}


def ablate_metadata(trained: TrainedModel, index: ImageIndex, new_bar: NewBar) -> list[Ablation]:
    """Score a model on the validation images of an index without each column, and without all of them.

    The backbone sees each image once; only the head is asked again. A model without metadata has no columns.
    """
    metadata = trained.metadata
    if metadata is None:
        return []
    cases: list[tuple[str, ...]] = [(name,) for name in metadata.names]
    cases += [metadata.names] if len(metadata.names) > 1 else []
    left = [[name not in case for name in metadata.names] for case in cases]
    rows, logits, targets = index.metadata_rows("val"), [list[Tensor]() for _ in cases], list[Tensor]()
    with torch.inference_mode(), new_bar("without metadata", len(rows)) as bar:
        done = 0
        for images, *_, batch_targets in eval_loader(trained, index, "val"):
            features = trained.model.features(images.to(trained.device, non_blocking=True))
            batch = rows[done : done + len(images)]
            for kept, of_case in zip(left, logits, strict=True):
                tensors = metadata_tensors(metadata, [_blanked(row, kept) for row in batch])
                beside = (tensor.to(trained.device) for tensor in tensors)
                of_case.append(trained.model.head(features, *beside).cpu())
            targets.append(batch_targets)
            done += len(images)
            bar.advance_to(done)
    names, thresholds, truth = trained.class_names, trained.thresholds, torch.cat(targets)
    return [
        Ablation(case, trained.task.score(torch.cat(of_case), truth, names, thresholds))
        for case, of_case in zip(cases, logits, strict=True)
    ]


def show_ablations(
    ablations: Sequence[Ablation], everything: Scores, metric: Monitor, display: Display
) -> None:
    """Show how the model scores without each column, below how it scores with all of them."""
    if not ablations:
        return
    shown: list[Monitor] = list(dict.fromkeys((metric, "val_loss")))
    rows = [("with all of it", Ablation((), everything))]
    rows += [(f"without {', '.join(one.without)}", one) for one in ablations]
    display.say("")
    display.table(
        ("metadata", *shown),
        [(label, *(f"{one.value(name):.4f}" for name in shown)) for label, one in rows],
        title="metadata ablation, on validation images",
    )


def _blanked(row: Sequence[str], kept: Sequence[bool]) -> tuple[str, ...]:
    return tuple(cell if keep else "" for cell, keep in zip(row, kept, strict=True))
