"""Curves of stages as functions of the steps done, for the tests of the diagnosis."""

import math

from finetune.optim.learning_rates import parse_lr
from finetune.optim.schedule import OneCycle
from finetune.report.diagnosis import Finding, Knobs, StageCurves, diagnose
from finetune.runs.history import EpochRow
from finetune.task import MultiLabel, SingleLabel


def a_stage(
    *,
    loss,
    val,
    train=None,
    gradient=None,
    name="unfrozen",
    lr="slice(1e-4, 1e-3)",
    steps=200,
    noise=0.02,
    accuracy=0.1,
):
    """Make the curves of a stage.

    `loss` and `gradient` are functions of the fraction of the steps done, the loss with `noise` of changing
    sign; `val` and `train` are the losses after each epoch, `accuracy` is that of each.
    """
    wheres = [i / steps for i in range(steps)]
    peak = parse_lr(lr).last
    events = [
        {
            "loss": loss(where) + (noise if i % 2 else -noise),
            "lrs": [OneCycle().rate(where, peak)],
            "grad_norm": {"head": 1.0 if gradient is None else gradient(where)},
        }
        for i, where in enumerate(wheres)
    ]
    train = train or [loss((i + 0.5) / len(val)) for i in range(len(val))]
    rows = [EpochRow(name, i + 1, train[i], val[i], *[accuracy] * 4, 1.0, 100.0) for i in range(len(val))]
    return StageCurves(name, len(val), parse_lr(lr), rows, events)


def some_knobs(*, classes=10, shares=(), label_smoothing=0.0, **changes):
    """Return knobs of even classes; or of images that may have several, of which the shares have each."""
    task, counts = (MultiLabel(), shares) if shares else (SingleLabel(), [1 / classes] * classes)
    knobs = {
        **task.baseline(counts, 1, label_smoothing=label_smoothing)._asdict(),
        "weight_decay": 0.01,
        "augment": "light",
        "trains_all": True,
    }
    return Knobs(**(knobs | changes))


def findings(*stages, **knobs):
    return diagnose(stages, some_knobs(**knobs))


def the_finding(*stages, **knobs) -> Finding:
    (found,) = findings(*stages, **knobs)
    return found


def learning(start=2.3, end=0.1, speed=12.0):
    """Return a loss that falls, and is down long before the end."""
    return lambda where: end + (start - end) * math.exp(-speed * where)


def hump(top, start=0.5):
    """Return a loss that is high where the rate is."""
    return lambda where: top if 0.2 <= where < 0.7 else start
