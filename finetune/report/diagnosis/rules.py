"""The rules by which curves are judged: each looks for one trouble and names its evidence and its knobs.

Losses are measured against that of a guess: ln C nats for C classes, of which an image has one; where it may
have several, the mean entropy of having each. A training loss is that of images as they were augmented and of
a network with dropout, so that a validation loss below it is as it should be.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.report.diagnosis.curves import Part, StageCurves
from finetune.runs.recorder import EpochRow

Trouble = Literal[
    "rate too high", "rate too low", "plateau", "overfitting", "underfitting", "still improving"
]

# Shares of the loss of a guess.
_HIGH = 0.3
_HARDLY_LEARNED = 0.5
_RISE = 0.2
_APART = 0.1
_WORTH_MORE_EPOCHS = 0.03

# Below this share of the longest gradient of the run, a gradient counts as vanished.
_VANISHED = 0.05

# A difference of two means is told from noise when it is more than so many standard errors.
_CLEAR = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that the curves say."""

    trouble: Trouble
    stage: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.trouble} (stage {self.stage}): {self.evidence}\n  try {self.advice}"


@dataclass(frozen=True)
class Knobs:
    """What the advice needs to know of the task and of the config."""

    classes: int
    label_smoothing: float
    """Share of the target (0–1) that is spread over all classes in training."""
    weight_decay: float
    augment: str
    trains_all: bool
    """Whether the last stage trains all layer groups."""
    prevalences: tuple[float, ...] = ()
    """Share of the images (0–1) that have each class, where one may have several; empty where it has one."""

    @property
    def guess(self) -> float:
        """The loss of giving every class the same probability, or its share of the images, in nats."""
        if self.prevalences:
            return sum(map(_entropy, self.prevalences)) / len(self.prevalences)
        return math.log(self.classes)

    @property
    def floor(self) -> float:
        """The lowest training loss that label smoothing leaves possible, in nats."""
        if self.prevalences:
            return _entropy(self.label_smoothing / 2)
        other = self.label_smoothing / self.classes
        right = 1 - self.label_smoothing + other
        return -right * math.log(right) - (self.classes - 1) * (other * math.log(other) if other else 0.0)


def _entropy(share: float) -> float:
    """Return the entropy of a yes or no, in nats."""
    return -sum(part * math.log(part) for part in (share, 1 - share) if part)


def stage_finding(stage: StageCurves, before: StageCurves | None, knobs: Knobs) -> Finding | None:
    """Judge how a stage learned: its rate, and whether it was stuck."""
    return (
        _rate_too_high(stage, before, knobs) or _plateau(stage, before, knobs) or _rate_too_low(stage, knobs)
    )


def end_finding(stages: Sequence[StageCurves], knobs: Knobs, *, explained: bool) -> Finding | None:
    """Judge what the run has come to.

    Args:
        stages: all stages, the last of which the run ended with.
        knobs: the task and the config.
        explained: whether the last stage has a finding already, which a high loss would follow from.
    """
    found = _overfitting(stages, knobs)
    if found is None and not explained:
        return _still_improving(stages[-1], knobs) or _underfitting(stages[-1], knobs)
    return found


def _rate_too_high(stage: StageCurves, before: StageCurves | None, knobs: Knobs) -> Finding | None:
    """Look for a training loss that rises while the rate is high; decay and noise do not lift it that far."""
    earlier = before.parts[-1:] if before else []
    parts = [*earlier, *stage.parts]
    rises = [(low, high) for i, high in enumerate(parts) for low in parts[:i] if _rose(low, high, knobs)]
    if not rises:
        return None
    low, high = max(rises, key=lambda rise: rise[1].loss - rise[0].loss)
    where = f"the stage before, {low}" if earlier and low is earlier[0] else str(low)
    beyond = high.loss > knobs.guess
    factor = 10 if beyond else 3
    guess = f", more than a guess ({knobs.guess:.2f})" if beyond else ""
    return Finding(
        "rate too high",
        stage.name,
        f"the training loss rose from {low.loss:.2f} ({where}) to {high.loss:.2f} ({high}){guess}",
        f"{_rate(stage, 1 / factor)}, or auto, which finds one",
    )


def _rose(low: Part, high: Part, knobs: Knobs) -> bool:
    rise = high.loss - low.loss
    return high.loss > 1.5 * low.loss and rise > _RISE * knobs.guess and _is_clear(rise, low, high)


def _plateau(stage: StageCurves, before: StageCurves | None, knobs: Knobs) -> Finding | None:
    """Look for a stretch with hardly any gradient at a high loss, where the rate was high enough to leave."""
    known = [*(before.parts if before else []), *stage.parts]
    steepest = max((part.gradient for part in known), default=0.0)

    def stuck(part: Part) -> bool:
        high = part.loss - knobs.floor > _HIGH * knobs.guess
        return high and part.rate > 0.1 and part.gradient < _VANISHED * steepest

    stretch = _longest(stage.parts, stuck)
    if len(stretch) < 2:
        return None
    first, last = stretch[0], stretch[-1]
    decay = f"optimizer.weight_decay=0.01 (now {knobs.weight_decay:g}), " if knobs.weight_decay > 0.1 else ""
    return Finding(
        "plateau",
        stage.name,
        f"steps {first.first}–{last.last} have a gradient of {max(part.gradient for part in stretch):.2g} "
        f"at a loss of {last.loss:.2f}; the longest was {steepest:.2g}",
        f"{decay}another optimizer (`finetune optimizers --race` shows which leave a saddle soon), "
        f"{_rate(stage, 3)}, or other weights",
    )


def _rate_too_low(stage: StageCurves, knobs: Knobs) -> Finding | None:
    """Look for a loss that is still high and has come down a little, along a straight line."""
    if not stage.thirds or not stage.parts:
        return None
    first, last = stage.parts[0], stage.parts[-1]
    high = last.loss - knobs.floor > _HARDLY_LEARNED * knobs.guess
    little = first.loss - last.loss < 0.25 * first.loss
    begin, middle, end = stage.thirds
    earlier, later = begin.loss - middle.loss, middle.loss - end.loss
    straight = _is_clear(later, middle, end) and later > 0.3 * earlier
    nothing = not _is_clear(begin.loss - end.loss, begin, end)
    if not (high and little and (straight or nothing)):
        return None
    return Finding(
        "rate too low",
        stage.name,
        f"the training loss went from {first.loss:.3f} to {last.loss:.3f} only, "
        + ("and in a straight line" if straight else "no more than batches differ")
        + f"; a guess has {knobs.guess:.3f}",
        f"{_rate(stage, 10)}, or auto, which finds one",
    )


def _overfitting(stages: Sequence[StageCurves], knobs: Knobs) -> Finding | None:
    """Look for losses that are apart and growing apart: training falls, validation rises."""
    rows = [row for stage in stages for row in stage.rows]
    last, lowest = rows[-1], min(rows, key=lambda row: row.val_loss)
    train = last.train_loss - knobs.floor
    apart = last.val_loss - train > _APART * knobs.guess and last.val_loss > 2 * train
    rising = last.val_loss > 1.05 * lowest.val_loss and last.train_loss < lowest.train_loss
    if not (apart and rising):
        return None
    stage = stages[-1]
    here = lowest.stage == stage.name
    at = f"stages.{stage.name}.epochs={lowest.epoch}" if here else f"leaving out stage {stage.name}"
    less = f"{at}, where it was lowest, or early_stopping.patience=3" if here else at
    return Finding(
        "overfitting",
        stage.name,
        f"the validation loss rose from {lowest.val_loss:.4f} (stage {lowest.stage}, epoch {lowest.epoch}) "
        f"to {last.val_loss:.4f}, while the training loss fell from {lowest.train_loss:.4f} to "
        f"{last.train_loss:.4f}",
        f"more images, {_more_augmentation(knobs)}a higher optimizer.weight_decay or model.head.dropout, "
        f"{less}",
    )


def _still_improving(stage: StageCurves, knobs: Knobs) -> Finding | None:
    """Look for a training loss that falls as long as there is a rate, and a validation loss that follows.

    The low rates that end a cycle bring a fall of their own, also where the rest of the stage brought none.
    """
    if not stage.thirds:
        return _too_few_steps(stage, knobs)
    begin, middle, end = stage.thirds
    earlier, later = begin.loss - middle.loss, middle.loss - end.loss
    falls = _is_clear(earlier, begin, middle) and _is_clear(later, middle, end)
    last = stage.rows[-1]
    if not (falls and last.val_loss <= 1.02 * stage.lowest.val_loss):
        return None
    following = later * min(1.0, later / earlier)  # as the falls shrink, so will the next
    fading = later < 0.2 * middle.loss and later < 0.7 * earlier
    if fading or following < _WORTH_MORE_EPOCHS * knobs.guess:
        return None
    before = (
        f", and the validation loss was lowest at the end ({last.val_loss:.4f})" if stage.rows[1:] else ""
    )
    return Finding(
        "still improving",
        stage.name,
        f"the training loss still fell, from {middle.loss:.3f} ({middle}) to {end.loss:.3f} ({end}){before}",
        _more_epochs(stage),
    )


def _too_few_steps(stage: StageCurves, knobs: Knobs) -> Finding | None:
    """Look for a loss that is high after so few steps that nothing else can be read from them."""
    last = stage.rows[-1]
    if not stage.steps or not _is_high(last, knobs) or last is not stage.lowest:
        return None
    return Finding(
        "still improving",
        stage.name,
        f"{len(stage.steps)} steps brought the validation loss to {last.val_loss:.3f}, its lowest; a guess "
        f"has {knobs.guess:.3f}",
        f"{_more_epochs(stage)}, or a smaller data.batch_size, for more steps in an epoch",
    )


def _underfitting(stage: StageCurves, knobs: Knobs) -> Finding | None:
    """Look for losses that are both high at the end, and that have not long been falling."""
    last = stage.rows[-1]
    if not stage.thirds or not _is_high(last, knobs):
        return None
    _, middle, end = stage.thirds
    return Finding(
        "underfitting",
        stage.name,
        f"training loss {last.train_loss:.3f} and validation loss {last.val_loss:.3f} are both high (a guess "
        f"has {knobs.guess:.3f}), and where the rate was high, training brought little: {middle.loss:.3f} "
        f"({middle}) to {end.loss:.3f} ({end})",
        _more_capacity(stage, knobs),
    )


def _is_high(row: EpochRow, knobs: Knobs) -> bool:
    return min(row.train_loss - knobs.floor, row.val_loss) > _HIGH * knobs.guess


def _more_epochs(stage: StageCurves) -> str:
    return f"stages.{stage.name}.epochs={2 * len(stage.rows)} (now {len(stage.rows)})"


def _more_augmentation(knobs: Knobs) -> str:
    more = {"none": "light or standard", "light": "standard", "standard": "strong"}.get(knobs.augment)
    return f"data.augment={more} (now {knobs.augment}), " if more else ""


def _more_capacity(stage: StageCurves, knobs: Knobs) -> str:
    if knobs.weight_decay > 0.1:
        return f"optimizer.weight_decay=0.01 (now {knobs.weight_decay:g})"
    tries = [] if knobs.trains_all else [f"stages.{stage.name}.train=all, or one more stage that does"]
    if knobs.augment in ("standard", "strong"):
        tries.append(f"data.augment=light (now {knobs.augment})")
    tries += ["a lower model.head.dropout", "a larger model.arch", "and look whether the labels are right"]
    return ", ".join(tries)


def _rate(stage: StageCurves, factor: float) -> str:
    """Write the key of a stage's rate with its form kept and its size changed."""
    other = stage.lr.peaking_at(stage.lr.last * factor)
    quote = '"' if stage.lr.sliced else ""
    return f"stages.{stage.name}.lr={quote}{other}{quote} (now {stage.lr})"


def _is_clear(difference: float, one: Part, other: Part) -> bool:
    return difference > _CLEAR * math.hypot(one.error, other.error)


def _longest(parts: Sequence[Part], holds: Callable[[Part], bool]) -> list[Part]:
    """Return the longest row of neighbours for which something holds; the last of equals."""
    longest: list[Part] = []
    row: list[Part] = []
    for part in parts:
        row = [*row, part] if holds(part) else []
        longest = row if len(row) >= len(longest) else longest
    return longest
