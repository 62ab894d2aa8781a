"""What is found out of the best model once it is trained: how sure it may be, and what it knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from finetune.analysis.calibration import Calibration, cross_calibrated, fit_temperature
from finetune.analysis.novelty import know_images
from finetune.choices import Split
from finetune.commands.evaluate.confidence import Confidence, compare_with_right
from finetune.commands.evaluate.evaluate import eval_loader
from finetune.commands.report.judged import MOST_JUDGED, Judged
from finetune.commands.train.telling import TellingAnswers, telling_answers
from finetune.data.index import ImageIndex
from finetune.progress import NewBar
from finetune.runs.trained_model import TrainedModel
from finetune.training.features import Features, compute_features

_MOST_KNOWN = 2000  # training images whose features are kept


@dataclass(frozen=True)
class Assessment:
    """What was found out of a model."""

    calibration: Calibration
    telling: TellingAnswers
    judged: Judged
    """the answers to validation images"""


def assess(
    trained: TrainedModel, index: ImageIndex, description: Mapping[str, Any], new_bar: NewBar
) -> Assessment:
    """Calibrate the best model of a run, learn what it knows, and write both down beside its weights.

    Validation images give the temperature, and the distance from which on an image is unlike those that the
    model was trained on. Of many images of either kind some are taken, evenly spaced.
    """
    index = index.thinned("train", _MOST_KNOWN).thinned("val", MOST_JUDGED)

    def look(split: Split) -> Features:
        loader, model = eval_loader(trained, index, split), trained.model
        return compute_features(model.features, loader, device=trained.device, progress=bar.advance_by)

    with new_bar("assessing", index.count("train") + index.count("val")) as bar:
        (train, *_), (val, *metadata, targets) = look("train"), look("val")
    logits, targets = logits_of(trained, val, metadata), targets.cpu()
    calibration = calibrate(trained, logits, targets)
    images = know_images(train.cpu(), val.cpu(), fewest=min(index.counts("train").values()))
    trained.run.save_assessment(
        {**description, "temperature": calibration.temperature},
        {
            "directions": images.directions,
            "threshold": torch.tensor(images.threshold, dtype=torch.float64),
            "nearest": torch.tensor(images.nearest),
        },
    )
    calibrated = replace(trained, temperature=calibration.temperature)
    judged = Judged(calibrated, index, "val", logits, targets)
    return Assessment(calibration, telling_answers(calibrated, index, logits, targets), judged)


def logits_of(trained: TrainedModel, features: Tensor, metadata: Sequence[Tensor]) -> Tensor:
    """Return the logits (N, C), on the CPU, of features (N, D) and metadata."""
    with torch.no_grad():
        logits: Tensor = trained.model.head(features, *metadata)
    return logits.cpu()


def calibrate(trained: TrainedModel, logits: Tensor, targets: Tensor) -> Calibration:
    """Return the temperature of a model by its logits (N, C), and what it changes on other images.

    Where it would raise their loss, as it may where there are few images, it is 1 and changes nothing.
    """
    task = trained.task

    def judge(scaled: Tensor) -> tuple[Confidence, float]:
        probabilities = task.probabilities(scaled)
        loss = float(task.losses(scaled, targets).mean())
        return compare_with_right(trained, logits, probabilities, targets), loss

    before, loss = judge(logits.double())
    after, loss_after = judge(cross_calibrated(logits, targets, task.losses))
    if loss_after >= loss:
        temperature, after, loss_after = 1.0, before, loss
    else:
        temperature = fit_temperature(logits, targets, task.losses)
    return Calibration(
        temperature, error=(before.error, after.error), loss=(loss, loss_after), coverage=after.coverages
    )
