"""What the run has come to: whether the model collapsed, overfits or underfits, and whether more epochs help.

Advice that raises something stops where advice that lowers it begins (weight decay: 0.1; augmentation:
`standard`), so that following one never leads to the other.
"""

from collections.abc import Sequence
from itertools import takewhile

from finetune.choices import Monitor
from finetune.metrics.monitor import is_better
from finetune.report.diagnosis.curves import StageCurves
from finetune.report.diagnosis.finding import Finding, Knobs, Predictions
from finetune.report.diagnosis.stage_rules import (
    ENOUGH_STEPS,
    LEARNED,
    is_clear,
    measured_rate_or_more_epochs,
    more_epochs,
)
from finetune.runs.history import EpochRow
from finetune.text import counted

# A final loss is high above this share of the chance loss.
_HIGH = 0.3

# Overfitting: the validation loss is above the training loss by this share of the chance loss and this many
# times it, and has risen from its lowest by this factor.
_APART, _APART_RATIO, _RISEN = 0.1, 2.0, 1.05

# Still improving: the validation loss is within this factor of its lowest, and one more stretch of training
# would lower the training loss by this share of the chance loss …
_AT_LOWEST, _WORTH_MORE_EPOCHS = 1.02, 0.03
# … unless the last fall was below these shares of the loss and of the fall before.
_FADING, _FADED = 0.2, 0.7

# Weight decay above this is lowered where a model underfits, and never recommended.
_MUCH_DECAY = 0.1

# The backbone has not learned in vain where it lowered the validation loss to this share.
_WORTH_THE_LOSS = 0.95

# Nothing was learned where the loss is above this share of that of a model that does not look at the images;
# above this multiple of it, the model is worse than it was before training.
_UNLEARNED, _COLLAPSED = 0.95, 1.05


def collapse_finding(
    predictions: Predictions, stage: StageCurves, knobs: Knobs, *, explained: bool
) -> Finding | None:
    """Look for a model that predicts the same class for every validation image and has learned nothing.

    Where most images are of that class, the loss tells whether the probabilities have learned something.
    """
    images = sum(predictions.actual)
    if max(predictions.predicted) < images or max(predictions.actual) == images:
        return None
    constant = predictions.constant_loss
    if predictions.loss <= _UNLEARNED * constant:
        return None
    name = predictions.class_names[predictions.predicted.index(images)]
    tries = [
        f"a lower rate, as above, in stage {stage.name}" if explained else measured_rate_or_more_epochs(stage)
    ]
    if not knobs.pretrained:
        tries.append("model.weights=default, which starts from a trained network")
    return Finding(
        "collapsed" if predictions.loss > _COLLAPSED * constant else "nothing learned",
        stage.name,
        f"one class ({name!r}) gets every prediction, for all {images:,} validation images, and nothing was "
        f"learned: the validation loss is {predictions.loss:.3f}; a model that does not look at the images "
        f"can have {constant:.3f}",
        ", or ".join(tries),
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
        return _still_improving(stages, knobs) or _underfitting(stages[-1], knobs)
    return found


def gain_finding(stages: Sequence[StageCurves], knobs: Knobs) -> Finding | None:
    """Look for a backbone whose training brought nothing over that of the head alone.

    Not where the head alone has not learned enough to be left at that.
    """
    alone = list(takewhile(lambda stage: stage.head_alone, stages))
    before = [row for stage in alone for row in stage.rows]
    after = [row for stage in stages[len(alone) :] for row in stage.rows]
    if not before or not after or _is_high(before[-1], knobs):
        return None
    best, later = (best_of(rows, knobs.monitor) for rows in (before, after))
    lower = min(row.val_loss for row in after) < _WORTH_THE_LOSS * min(row.val_loss for row in before)
    if lower or is_better(later.value(knobs.monitor), best.value(knobs.monitor), knobs.monitor):
        return None
    name, took = stages[len(alone)].name, sum(row.seconds for row in after)
    share = took / (took + sum(row.seconds for row in before))
    return Finding(
        "no gain",
        name,
        f"{_shown(best, knobs.monitor)} with the head alone (stage {best.stage}, epoch {best.epoch}), and "
        f"{_shown(later, knobs.monitor)} after it in {counted(len(after), 'epoch')}, {share:.0%} of the time",
        f"leaving out stage {name}, or what may still gain: more images (finetune curve), another model.arch "
        "(finetune rank), a larger data.image_size",
    )


def best_of(rows: Sequence[EpochRow], monitor: Monitor) -> EpochRow:
    """Return the best of some epochs, the first of equals."""
    best = rows[0]
    for row in rows[1:]:
        if is_better(row.value(monitor), best.value(monitor), monitor):
            best = row
    return best


def _shown(row: EpochRow, monitor: Monitor) -> str:
    value = row.value(monitor)
    return f"{monitor} {value:.2%}" if "accuracy" in monitor else f"{monitor} {value:.4f}"


def _overfitting(stages: Sequence[StageCurves], knobs: Knobs) -> Finding | None:
    """Look for losses that are apart and growing apart: training falls, validation rises."""
    rows = [row for stage in stages for row in stage.rows]
    last, lowest = rows[-1], min(rows, key=lambda row: row.val_loss)
    train = last.train_loss - knobs.least_loss
    apart = last.val_loss - train > _APART * knobs.chance_loss and last.val_loss > _APART_RATIO * train
    learned = train < LEARNED * knobs.chance_loss
    rising = last.val_loss > _RISEN * lowest.val_loss and last.train_loss < lowest.train_loss
    if not (apart and learned and rising):
        return None
    stage = stages[-1]
    # Not fewer epochs: a shorter cycle is another training, and may end still improving.
    less = "early_stopping.patience=3" if lowest.stage == stage.name else f"leaving out stage {stage.name}"
    return Finding(
        "overfitting",
        stage.name,
        f"the validation loss rose from {lowest.val_loss:.4f} (stage {lowest.stage}, epoch {lowest.epoch}) "
        f"to {last.val_loss:.4f}, while the training loss fell from {lowest.train_loss:.4f} to "
        f"{last.train_loss:.4f}",
        ", ".join(["more images", *_more_regularization(knobs), f"or {less}"]),
    )


def _still_improving(stages: Sequence[StageCurves], knobs: Knobs) -> Finding | None:
    """Look for a training loss that falls as long as there is a rate, and a validation loss that follows.

    The low rates that end a cycle bring a fall of their own, also where the rest of the stage brought none.
    """
    stage = stages[-1]
    if len(stage.steps) < ENOUGH_STEPS or not stage.thirds:
        return _too_few_steps(stages, knobs)
    begin, middle, end = stage.thirds
    earlier, later = begin.loss - middle.loss, middle.loss - end.loss
    falls = is_clear(earlier, begin, middle) and is_clear(later, middle, end)
    last = stage.rows[-1]
    if not (falls and last.val_loss <= _AT_LOWEST * stage.lowest.val_loss):
        return None
    following = later * min(1.0, later / earlier)  # as the falls shrink, so will the next
    fading = later < _FADING * (middle.loss - knobs.least_loss) and later < _FADED * earlier
    if fading or following < _WORTH_MORE_EPOCHS * knobs.chance_loss:
        return None
    at_end = (
        f", and the validation loss was lowest at the end ({last.val_loss:.4f})" if stage.rows[1:] else ""
    )
    return Finding(
        "still improving",
        stage.name,
        f"the training loss still fell, from {middle.loss:.3f} ({middle}) to {end.loss:.3f} ({end}){at_end}",
        more_epochs(stage),
    )


def _too_few_steps(stages: Sequence[StageCurves], knobs: Knobs) -> Finding | None:
    """Look for a loss that is high after so few steps that nothing else can be read from them."""
    stage, last = stages[-1], stages[-1].rows[-1]
    lowest = min(row.val_loss for stage in stages for row in stage.rows)
    improved = last.val_loss == lowest < knobs.chance_loss
    if not stage.steps or not _is_high(last, knobs) or not improved:
        return None
    return Finding(
        "still improving",
        stage.name,
        f"{counted(len(stage.steps), 'step')} brought the validation loss to {last.val_loss:.3f}, its "
        f"lowest; random guessing gives {knobs.chance_loss:.3f}",
        f"{more_epochs(stage)}, or a smaller data.batch_size, for more steps in an epoch",
    )


def _underfitting(stage: StageCurves, knobs: Knobs) -> Finding | None:
    """Look for losses that are both high at the end, after steps enough to call it one."""
    last = stage.rows[-1]
    if len(stage.steps) < ENOUGH_STEPS or not stage.thirds or not _is_high(last, knobs):
        return None
    _, middle, end = stage.thirds
    # What still falls may only need time, unless a strong weight decay is known to hold it up.
    falling = middle.loss - end.loss > _WORTH_MORE_EPOCHS * knobs.chance_loss
    if falling and knobs.weight_decay <= _MUCH_DECAY:
        return None
    return Finding(
        "underfitting",
        stage.name,
        f"training loss {last.train_loss:.3f} and validation loss {last.val_loss:.3f} are both high (random "
        f"guessing gives {knobs.chance_loss:.3f}), and where the rate was high, training brought little: "
        f"{middle.loss:.3f} ({middle}) to {end.loss:.3f} ({end})",
        _more_capacity(stage, knobs),
    )


def _is_high(row: EpochRow, knobs: Knobs) -> bool:
    return min(row.train_loss - knobs.least_loss, row.val_loss) > _HIGH * knobs.chance_loss


def _more_regularization(knobs: Knobs) -> list[str]:
    more = {"none": "light or standard", "light": "standard"}.get(knobs.augment)
    tries = [f"data.augment={more} (now {knobs.augment})"] if more else []
    if knobs.weight_decay < _MUCH_DECAY:
        tries.append(f"optimizer.weight_decay={_MUCH_DECAY:g} (now {knobs.weight_decay:g})")
    return [*tries, "a higher model.head.dropout"]


def _more_capacity(stage: StageCurves, knobs: Knobs) -> str:
    if knobs.weight_decay > _MUCH_DECAY:
        return f"optimizer.weight_decay=0.01 (now {knobs.weight_decay:g})"
    tries = [] if knobs.trains_all else [f"stages.{stage.name}.train=all, or one more stage that does"]
    if knobs.augment in ("strong", "randaugment", "trivial"):
        tries.append(f"data.augment=standard (now {knobs.augment})")
    if knobs.mixed:
        tries.append("no data.mixup and no data.cutmix")
    tries += ["a larger model.arch", "and check that the labels are right"]
    return ", ".join(tries)
