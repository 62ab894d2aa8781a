"""How far the probabilities of a model can be believed, and what is gained by answering only the surest."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from finetune.analysis.calibration import (
    Bin,
    Coverage,
    calibration_error,
    reliability,
    risk_against_coverage,
)
from finetune.display import Display
from finetune.runs.trained_model import TrainedModel


@dataclass(frozen=True)
class Confidence:
    """How certain answers are, and how often they are right."""

    error: float
    """Expected calibration error, 0–1."""
    bins: tuple[Bin, ...]
    coverages: tuple[Coverage, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what `evaluate --json` says of it."""
        return {
            "expected_calibration_error": self.error,
            "reliability": [one._asdict() for one in self.bins],
            "coverage": [one._asdict() for one in self.coverages],
        }


def judge_confidence(trained: TrainedModel, logits: Tensor, targets: Tensor) -> Confidence:
    """Compare the calibrated probabilities of answers, by their logits (N, C), with what is right."""
    return compare_with_right(trained, logits, trained.probabilities(logits), targets)


def compare_with_right(
    trained: TrainedModel, logits: Tensor, probabilities: Tensor, targets: Tensor
) -> Confidence:
    """Compare probabilities (N, C) of the answers that logits (N, C) give with what is right."""
    task, assigned = trained.task, trained.assigned(logits)
    certainty, right = task.certainty(probabilities, assigned), task.is_right(assigned, targets)
    bins = reliability(certainty, right)
    return Confidence(calibration_error(bins), tuple(bins), tuple(risk_against_coverage(certainty, right)))


def show_confidence(confidence: Confidence, display: Display) -> None:
    """Show the error of the calibrated probabilities, and how often the surest answers are right."""
    display.say(f"\ncalibrated probabilities are off by {confidence.error:.1%} on average")
    display.table(
        ("surest images", "right", "probability from"),
        [
            (f"{one.coverage:.0%}", f"{one.right:.2%}", f"{one.confidence:.4f}")
            for one in confidence.coverages
        ],
    )
