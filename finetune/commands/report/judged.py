"""What a model has answered for images of known class, and what of it is worth to be shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from finetune.analysis.label_flags import confident_doubts
from finetune.analysis.uncertainty import REACH, pseudo_values, standard_error
from finetune.choices import Split
from finetune.commands.evaluate.confidence import Confidence, judge_confidence
from finetune.commands.train.telling import Told, tell
from finetune.data.index import ImageIndex, Sample
from finetune.metrics.score import Scores
from finetune.runs.trained_model import TrainedModel

MOST_JUDGED = 10_000
"""validation images whose answers are shown, and choose a temperature and a distance"""

_OF_A_CELL, _OF_A_HIT = 6, 3  # pictures of a cell of the confusion matrix; of one on its diagonal
_OF_ALL_CELLS = 240  # a page that people send on has no room for more, and a training's end no time
_DOUBTFUL = 12
_MOST_WRONG = 60  # lines of classes that are missed, or given wrongly
_MOST_SCORED = 2_000_000  # probabilities; of more the interval of mAP would take long


@dataclass(frozen=True)
class Judged:
    """Answers of a model to the images of one split."""

    trained: TrainedModel
    """calibrated"""
    index: ImageIndex
    split: Split
    logits: Tensor
    """(N, C), in the order of the split's samples"""
    targets: Tensor

    @cached_property
    def confidence(self) -> Confidence:
        """How certain the answers are, and how often they are right."""
        return judge_confidence(self.trained, self.logits, self.targets)

    @cached_property
    def assigned(self) -> Tensor:
        """The classes that the images are given (N, C)."""
        return self.trained.assigned(self.logits)

    @cached_property
    def probabilities(self) -> Tensor:
        """The calibrated probabilities (N, C)."""
        return self.trained.probabilities(self.logits)

    @cached_property
    def certainty(self) -> Tensor:
        """The calibrated probability of what the images are given (N,)."""
        return self.trained.task.certainty(self.probabilities, self.assigned)

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The images."""
        return self.index.of_split(self.split)

    def told(self, positions: Sequence[int]) -> list[Told]:
        """Return what is said of some of the images."""
        return [
            tell(self.trained, self.index, self.samples[one], self.assigned[one], self.certainty[one])
            for one in positions
        ]

    def cells(self) -> Mapping[tuple[int, int], list[int]]:
        """Return positions of images to show of each cell of the confusion matrix.

        The surest of each are taken; cells with the most images, and mistakes, come first.
        """
        if self.trained.task.multilabel:
            return {}
        predicted, found = self.assigned.long().argmax(1).tolist(), dict[tuple[int, int], list[int]]()
        targets = self.targets.tolist()
        for position in self.certainty.sort(descending=True, stable=True).indices.tolist():
            found.setdefault((targets[position], predicted[position]), []).append(position)
        order = sorted(found, key=lambda cell: (cell[0] == cell[1], -len(found[cell]), cell))
        room, kept = _OF_ALL_CELLS, {}
        for cell in order:
            own = found[cell][: min(room, _OF_A_HIT if cell[0] == cell[1] else _OF_A_CELL)]
            room -= len(own)
            if own:
                kept[cell] = own
        return kept

    def wrong_labels(self) -> list[tuple[int, bool, list[int]]]:
        """Return which classes are missed (True) or given wrongly, the most frequent first, and where.

        Images stand in the order in which the model is furthest from the truth.
        """
        if not self.trained.task.multilabel:
            return []
        actual, found = self.targets.bool(), list[tuple[int, bool, list[int]]]()
        for number in range(actual.shape[1]):
            given, has, probability = (
                self.assigned[:, number],
                actual[:, number],
                self.probabilities[:, number],
            )
            for missed in (True, False):
                wrong = (has & ~given) if missed else (given & ~has)
                positions = wrong.nonzero()[:, 0]
                order = probability[positions].sort(descending=not missed, stable=True).indices
                if len(positions):
                    found.append((number, missed, positions[order].tolist()))
        return sorted(found, key=lambda one: -len(one[2]))[:_MOST_WRONG]

    def doubtful(self) -> tuple[list[Told], int]:
        """Return the images with the most doubtful labels, and how many labels are doubtful in all.

        `answer` and `certainty` of each are those of the class that the label is confused with.
        """
        if self.trained.task.multilabel:
            return [], 0
        own = self.probabilities.gather(1, self.targets[:, None])[:, 0]
        best = self.probabilities.max(1)
        doubts = confident_doubts(self.probabilities, self.targets) & (best.indices != self.targets)
        margins = torch.where(doubts, best.values - own, -1.0)
        order = margins.sort(descending=True, stable=True).indices[: min(_DOUBTFUL, int(doubts.sum()))]
        return self.told(order.tolist()), int(doubts.sum())

    def interval(self, scores: Scores) -> tuple[float, float] | None:
        """Return the 95% interval of mAP where an image may have several classes.

        None where it would take long, and of one class, whose accuracy has an interval without any answer.
        """
        if not self.trained.task.multilabel or self.logits.numel() > _MOST_SCORED or len(self.logits) < 2:
            return None
        task, names, thresholds = self.trained.task, self.trained.class_names, self.trained.thresholds

        def mean_precision(positions: Tensor) -> float:
            return task.score(self.logits[positions], self.targets[positions], names, thresholds).map

        reach = REACH * standard_error(pseudo_values(mean_precision, len(self.logits)))
        return max(scores.map - reach, 0.0), min(scores.map + reach, 1.0)
