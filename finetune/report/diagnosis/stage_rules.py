"""How each stage learned: whether its rate was too high or too low, and whether it got stuck.

No advice here names a higher rate. A rate that looks too low after a few noisy steps is often close to the
highest that works (ants and bees, thirty steps: 0.003 looked too low, 0.03 diverged), so what is
recommended there is to measure the rate (`auto`) or to train longer. Lowering is the only direction that
curves show reliably, because a loss that has risen far is no noise. So no advice is ever taken back by the
next run.

Losses are compared with that of random guessing, `Knobs.chance_loss`. The training loss is measured on
augmented images through dropout, so a validation loss below it is normal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from finetune.report.diagnosis.curves import Part, StageCurves
from finetune.report.diagnosis.finding import Finding, Knobs
from finetune.text import counted

# Fewer steps than this are never called slow or final: two epochs of a small data set are thirty.
ENOUGH_STEPS = 50

# A difference of two means is more than noise when it exceeds so many standard errors.
_CLEAR = 3.0

# A loss has risen when it is this many times, and by this share of the chance loss, above an earlier one.
_RISE_RATIO, _RISE = 1.5, 0.2

# A plateau has a loss above this share of the chance loss, at a rate above this share of the peak, and
# gradients below this share of the longest.
_PLATEAU_LOSS, _PLATEAU_RATE, _VANISHED = 0.3, 0.1, 0.05

# Hardly learned: the training loss stays above this share of the chance loss …
_HARDLY_LEARNED = 0.5
# … and falls by less than this share of itself, along a straight line: the second half of the way (in sums
# of rates) brings at least this share of what the first brought.
_LITTLE, _STRAIGHT = 0.25, 0.3
# Training images count as learned at a training loss below this share of the chance loss.
LEARNED = 0.5

# Nothing learned: nor did the validation loss fall by this share of what it was before, nor is the balanced
# accuracy this share of the way from chance to 1 or this many times chance: ranks are right long before
# probabilities are, and of 100 classes a tenth right is much.
_VALIDATED, _ACCURATE, _TIMES_CHANCE = 0.05, 0.2, 3.0
# Few steps have not failed where the accuracy is beyond these already.
_ACCURATE_SOON, _TIMES_CHANCE_SOON = 0.1, 1.5


def stage_finding(
    stage: StageCurves, before: StageCurves | None, knobs: Knobs, *, last: bool
) -> Finding | None:
    """Judge how a stage learned, by its most specific trouble; `last` tells whether no stage follows."""
    return (
        _rate_too_high(stage, before, knobs)
        or _validation_exploded(stage, before, knobs)
        or _plateau(stage, before, knobs)
        or _rate_too_low(stage, knobs)
        or _nothing_learned(stage, before, knobs, last=last)
    )


def _rate_too_high(stage: StageCurves, before: StageCurves | None, knobs: Knobs) -> Finding | None:
    """Look for a training loss that rises while the rate is high; decay and noise do not lift it that far."""
    earlier = before.parts[-1:] if before else []
    parts = [*earlier, *stage.parts]
    rises = [(low, high) for i, high in enumerate(parts) for low in parts[:i] if _rose(low, high, knobs)]
    if not rises:
        return None
    low, high = max(rises, key=lambda rise: rise[1].loss - rise[0].loss)
    where = f"the stage before, {low}" if earlier and low is earlier[0] else str(low)
    beyond = high.loss > knobs.chance_loss
    factor = 10 if beyond else 3
    chance = f", more than random guessing gives ({knobs.chance_loss:.2f})" if beyond else ""
    return Finding(
        "rate too high",
        stage.name,
        f"the training loss rose from {low.loss:.2f} ({where}) to {high.loss:.2f} ({high}){chance}",
        _lower_rate(stage, factor),
    )


def _validation_exploded(stage: StageCurves, before: StageCurves | None, knobs: Knobs) -> Finding | None:
    """Look for a validation loss that rises above chance while the training images are not learned either.

    Large steps leave the running statistics of batch normalisation behind: training batches, which bring
    their own, still look well. Where they are learned, the same rise is overfitting.
    """
    rows = [*(before.rows[-1:] if before else []), *stage.rows]
    high, low = stage.rows[-1], min(rows, key=lambda row: row.val_loss)
    exploded = high.val_loss > max(_RISE_RATIO * low.val_loss, knobs.chance_loss)
    learned = high.train_loss - knobs.least_loss < LEARNED * knobs.chance_loss
    if not exploded or learned:
        return None
    return Finding(
        "rate too high",
        stage.name,
        f"the validation loss rose from {low.val_loss:.3f} (stage {low.stage}, epoch {low.epoch}) to "
        f"{high.val_loss:.3f}, more than random guessing gives ({knobs.chance_loss:.3f}), while the training "
        f"loss was still {high.train_loss:.3f}",
        _lower_rate(stage, 3),
    )


def _rose(low: Part, high: Part, knobs: Knobs) -> bool:
    rise = high.loss - low.loss
    return (
        high.loss > _RISE_RATIO * low.loss and rise > _RISE * knobs.chance_loss and is_clear(rise, low, high)
    )


def _plateau(stage: StageCurves, before: StageCurves | None, knobs: Knobs) -> Finding | None:
    """Look for a stretch with hardly any gradient at a high loss, where the rate was high enough to leave."""
    known = [*(before.parts if before else []), *stage.parts]
    steepest = max((part.gradient for part in known), default=0.0)

    def stuck(part: Part) -> bool:
        high = part.loss - knobs.least_loss > _PLATEAU_LOSS * knobs.chance_loss
        return high and part.rate > _PLATEAU_RATE and part.gradient < _VANISHED * steepest

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
        "or other weights",
    )


def _rate_too_low(stage: StageCurves, knobs: Knobs) -> Finding | None:
    """Look for a loss that, after many steps, has come down a little, along a straight line."""
    if len(stage.steps) < ENOUGH_STEPS or not stage.thirds or not _is_hardly_learned(stage, knobs):
        return None
    first, last = stage.parts[0], stage.parts[-1]
    begin, middle, end = stage.thirds
    earlier, later = begin.loss - middle.loss, middle.loss - end.loss
    little = first.loss - last.loss < _LITTLE * (first.loss - knobs.least_loss)
    if not (little and is_clear(later, middle, end) and later > _STRAIGHT * earlier):
        return None
    return Finding(
        "rate too low",
        stage.name,
        f"in {counted(len(stage.steps), 'step')} the training loss fell only from {first.loss:.3f} "
        f"to {last.loss:.3f}, in a straight line; random guessing gives {knobs.chance_loss:.3f}",
        measured_rate_or_more_epochs(stage),
    )


def _nothing_learned(
    stage: StageCurves, before: StageCurves | None, knobs: Knobs, *, last: bool
) -> Finding | None:
    """Look for a loss of training that has not fallen beyond its noise, and one of validation that has not.

    The rate may be too low or too high, or there is nothing to learn: the curve alone does not tell. A few
    steps that brought nothing matter only if no others follow, and if the accuracy is near chance too.
    """
    few = len(stage.steps) < ENOUGH_STEPS
    if not stage.parts or not _is_hardly_learned(stage, knobs) or (few and not last):
        return None
    first, final = stage.parts[0], stage.parts[-1]
    begin, end = (stage.thirds[0], stage.thirds[-1]) if stage.thirds else (first, final)
    fell = is_clear(begin.loss - end.loss, begin, end) or first.loss - final.loss > _LITTLE * (
        first.loss - knobs.least_loss
    )
    chance = knobs.chance_loss
    started = min(chance, before.rows[-1].val_loss) if before else chance
    validated = stage.lowest.val_loss < (1 - _VALIDATED) * started or _is_accurate(stage, knobs)
    if (fell and final.loss < chance) or validated:
        return None
    return Finding(
        "nothing learned",
        stage.name,
        f"in {counted(len(stage.steps), 'step')} the training loss {_moved(first, final)}; "
        f"random guessing gives {knobs.chance_loss:.3f}",
        f"{measured_rate_or_more_epochs(stage)}, and check that the labels are right",
    )


def _is_accurate(stage: StageCurves, knobs: Knobs) -> bool:
    chance, few = knobs.chance_accuracy, len(stage.steps) < ENOUGH_STEPS
    share, times = (_ACCURATE_SOON, _TIMES_CHANCE_SOON) if few else (_ACCURATE, _TIMES_CHANCE)
    bar = min(chance + share * (1 - chance), times * chance)
    return max(row.val_balanced_accuracy for row in stage.rows) > bar


def _is_hardly_learned(stage: StageCurves, knobs: Knobs) -> bool:
    bar = _HARDLY_LEARNED * knobs.chance_loss
    # Nobody knows a mixture as well as an image: there whole images have the last word.
    return stage.parts[-1].loss - knobs.least_loss > bar and not (knobs.mixed and stage.lowest.val_loss < bar)


def _moved(first: Part, last: Part) -> str:
    """Say where a loss went that did not clearly fall."""
    verb = "rose" if last.loss > first.loss else "fell"
    where = f"{verb} from {first.loss:.3f} to {last.loss:.3f}"
    if is_clear(abs(last.loss - first.loss), first, last):
        return where
    return f"{where}, within the noise between batches"


def measured_rate_or_more_epochs(stage: StageCurves) -> str:
    """Advise on a stage that was slow or stood still; a rate that was measured is not measured again."""
    if stage.rate_was_found:
        return more_epochs(stage)
    return f"{_auto(stage)}, which measures the rate, or {more_epochs(stage)}"


def _lower_rate(stage: StageCurves, factor: float) -> str:
    """Write the key of a stage's rate with its form kept and its size divided."""
    lower = stage.lr.peaking_at(stage.lr.last / factor)
    quote = '"' if stage.lr.sliced else ""
    return f"stages.{stage.name}.lr={quote}{lower}{quote} (now {stage.lr})"


def _auto(stage: StageCurves) -> str:
    """Write the key of a stage's rate with its form kept and `auto` for its size."""
    lr = stage.lr
    auto = replace(lr, last=1.0, first=None if lr.first is None else lr.first / lr.last, auto=True)
    quote = '"' if lr.sliced else ""
    return f"stages.{stage.name}.lr={quote}{auto}{quote} (now {lr})"


def more_epochs(stage: StageCurves) -> str:
    """Write the key of a stage's epochs with twice as many as were done."""
    return f"stages.{stage.name}.epochs={2 * len(stage.rows)} (now {len(stage.rows)})"


def is_clear(difference: float, one: Part, other: Part) -> bool:
    """Tell whether a difference of the mean losses of two parts is more than noise."""
    return difference > _CLEAR * math.hypot(one.error, other.error)


def _longest(parts: Sequence[Part], holds: Callable[[Part], bool]) -> list[Part]:
    """Return the longest row of neighbours for which something holds; the last of equals."""
    longest: list[Part] = []
    row: list[Part] = []
    for part in parts:
        row = [*row, part] if holds(part) else []
        longest = row if len(row) >= len(longest) else longest
    return longest
