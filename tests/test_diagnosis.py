import json
import math
from pathlib import Path

import pytest
from conftest import run_finetune, write_small_config

from finetune.optim.learning_rates import parse_lr
from finetune.optim.schedule import OneCycle
from finetune.report.diagnosis import Finding, Knobs, StageCurves, diagnose, steps_by_stage
from finetune.runs.recorder import EpochRow

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


def a_stage(*, loss, val, train=None, gradient=None, name="unfrozen", lr="slice(1e-4, 1e-3)", steps=200):
    """Make the curves of a stage.

    `loss` and `gradient` are functions of the fraction of the steps done; `val` and `train` are the losses
    after each epoch.
    """
    wheres = [i / steps for i in range(steps)]
    peak = parse_lr(lr).last
    events = [
        {
            "loss": loss(where) + (0.02 if i % 2 else -0.02),
            "lrs": [OneCycle().rate(where, peak)],
            "grad_norm": {"head": 1.0 if gradient is None else gradient(where)},
        }
        for i, where in enumerate(wheres)
    ]
    train = train or [loss((i + 0.5) / len(val)) for i in range(len(val))]
    rows = [
        EpochRow(name, i + 1, train[i], val[i], *[1 - val[i] / 3] * 4, 1.0, 100.0) for i in range(len(val))
    ]
    return StageCurves(name, len(val), parse_lr(lr), rows, events)


def some_knobs(**changes):
    knobs = {
        "classes": 10,
        "label_smoothing": 0.0,
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


def test_nothing_is_said_where_all_is_well():
    frozen = a_stage(name="frozen", loss=learning(), val=[0.3, 0.15, 0.1], lr=3e-3)
    unfrozen = a_stage(loss=learning(start=0.15, end=0.05), val=[0.09, 0.07, 0.06, 0.06])
    assert findings(frozen, unfrozen) == []


def test_a_validation_loss_below_that_of_training_is_as_it_should_be():
    assert findings(a_stage(loss=learning(end=0.4), val=[0.4, 0.2, 0.15, 0.15])) == []


def test_a_gradient_that_fades_as_the_loss_does_is_no_plateau():
    gradient = learning(start=5.0, end=0.001)
    assert findings(a_stage(loss=learning(end=0.01), gradient=gradient, val=[0.1, 0.02, 0.02])) == []


def test_a_stage_of_few_steps_or_of_lost_ones_is_not_judged_by_them():
    assert findings(a_stage(loss=lambda where: 0.1 + 9 * where, val=[0.2], steps=6)) == []
    lost = a_stage(loss=learning(), val=[0.2, 0.1])
    assert findings(StageCurves(lost.name, 2, lost.lr, lost.rows, [])) == []


def test_losses_that_part_are_overfitting():
    found = the_finding(
        a_stage(loss=learning(end=0.02), train=[0.9, 0.3, 0.1, 0.02], val=[0.8, 0.5, 0.6, 0.7]),
        augment="none",
    )
    assert found.trouble == "overfitting"
    assert found.evidence == (
        "the validation loss rose from 0.5000 (stage unfrozen, epoch 2) to 0.7000, "
        "while the training loss fell from 0.3000 to 0.0200"
    )
    assert "data.augment=light or standard (now none)" in found.advice
    assert "optimizer.weight_decay" in found.advice
    assert "stages.unfrozen.epochs=2" in found.advice


def test_a_stage_that_only_overfits_can_be_left_out():
    frozen = a_stage(name="frozen", loss=learning(), val=[0.6, 0.4])
    unfrozen = a_stage(loss=learning(start=0.1, end=0.01), train=[0.09, 0.01], val=[0.5, 0.6])
    found = the_finding(frozen, unfrozen)
    assert "from 0.4000 (stage frozen, epoch 2) to 0.6000" in found.evidence
    assert "leaving out stage unfrozen" in found.advice


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ([0.9, 0.3, 0.1, 0.02], [0.8, 0.6, 0.5, 0.5]),  # apart, but the validation loss still falls
        ([0.05, 0.02, 0.01, 0.01], [0.05, 0.04, 0.05, 0.06]),  # it rises, by next to nothing
        ([0.3, 0.4, 0.5, 0.6], [0.5, 0.6, 0.7, 0.8]),  # both rise
    ],
)
def test_losses_that_do_not_part_are_no_overfitting(train, val):
    assert findings(a_stage(loss=learning(end=0.02), train=train, val=val)) == []


def test_losses_that_are_both_high_and_flat_are_underfitting():
    found = the_finding(a_stage(loss=learning(end=1.2), val=[1.4, 1.3, 1.2, 1.2]), weight_decay=0.9)
    assert found.trouble == "underfitting"
    assert found.evidence.startswith(
        "training loss 1.200 and validation loss 1.200 are both high (a guess has 2.303)"
    )
    assert found.advice == "optimizer.weight_decay=0.01 (now 0.9)"


def test_underfitting_without_much_decay_asks_for_more_to_learn_with():
    stage = a_stage(loss=learning(end=1.2), val=[1.4, 1.3, 1.2, 1.2])
    found = the_finding(stage, trains_all=False, augment="strong")
    assert found.advice.startswith(
        "stages.unfrozen.train=all, or one more stage that does, data.augment=light"
    )
    assert "weight_decay" not in found.advice


def test_what_label_smoothing_adds_to_the_training_loss_is_not_held_against_it():
    smoothed = some_knobs(label_smoothing=0.3)
    targets = [0.73, *[0.03] * 9]
    assert smoothed.floor == pytest.approx(-sum(p * math.log(p) for p in targets))
    assert some_knobs().floor == 0
    stage = a_stage(loss=learning(end=smoothed.floor + 0.05), val=[0.9, 0.8, 0.75, 0.75])
    assert findings(stage, label_smoothing=0.3) == []
    assert the_finding(stage).trouble == "underfitting"


def test_where_an_image_may_have_several_classes_a_guess_is_how_many_have_each():
    knobs = some_knobs(prevalences=(0.5, 0.1), label_smoothing=0.2)
    rare = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert knobs.guess == pytest.approx((math.log(2) + rare) / 2)
    assert knobs.floor == pytest.approx(rare)  # targets of 0.1 and 0.9
    assert some_knobs(prevalences=(0.5, 1.0)).guess == pytest.approx(math.log(2) / 2)
    still = a_stage(loss=lambda where: 0.6, val=[0.6] * 3)
    (found,) = findings(still, prevalences=(0.5, 0.5, 0.4))
    assert found.trouble == "rate too low"
    assert "a guess has 0.686" in found.evidence


def test_a_loss_that_still_falls_asks_for_more_epochs():
    found = the_finding(a_stage(loss=lambda where: 2.3 - 1.5 * where, val=[1.9, 1.3, 0.9]))
    assert found.trouble == "still improving"
    assert "the validation loss was lowest at the end (0.9000)" in found.evidence
    assert found.advice == "stages.unfrozen.epochs=6 (now 3)"


def test_the_fall_that_low_rates_bring_alone_does_not_ask_for_more_epochs():
    annealed = a_stage(loss=lambda where: 0.6 - 0.3 * max(0.0, where - 0.6) / 0.4, val=[0.6, 0.6, 0.5, 0.4])
    assert findings(annealed) == []


def test_a_high_loss_after_a_few_steps_asks_for_more_of_them():
    found = the_finding(a_stage(loss=lambda where: 2.3 - where, val=[2.2, 2.0], steps=6))
    assert found.trouble == "still improving"
    assert found.evidence == "6 steps brought the validation loss to 2.000, its lowest; a guess has 2.303"
    assert "data.batch_size" in found.advice


def test_only_the_last_stage_is_asked_how_it_ended():
    first = a_stage(name="frozen", loss=lambda where: 2.3 - 1.5 * where, val=[0.9])
    assert findings(first, a_stage(loss=learning(start=0.8, end=0.1), val=[0.2, 0.1])) == []
    assert the_finding(first).trouble == "still improving"


def hump(top, start=0.5):
    """Return a loss that is high where the rate is."""
    return lambda where: top if 0.2 <= where < 0.7 else start


def test_a_loss_that_rises_with_the_rate_says_that_the_rate_is_too_high():
    found = the_finding(a_stage(loss=hump(top=6.0), val=[5.0, 7.0, 1.0, 0.5]))
    assert (found.trouble, found.stage) == ("rate too high", "unfrozen")
    assert found.evidence.startswith("the training loss rose from 0.50 (steps 1–20) to 6.00 (steps 41–60)")
    assert "more than a guess (2.30)" in found.evidence
    assert found.advice.startswith('stages.unfrozen.lr="slice(1e-5, 1e-4)" (now slice(1e-4, 1e-3))')


def test_a_smaller_rise_asks_for_a_smaller_change():
    found = the_finding(a_stage(loss=hump(top=1.6), val=[0.9, 1.2, 0.6, 0.4], lr=3e-3))
    assert found.trouble == "rate too high"
    assert found.advice.startswith("stages.unfrozen.lr=1e-3 (now 3e-3)")


def test_a_stage_that_spoils_what_the_one_before_had_learned_has_too_high_a_rate():
    frozen = a_stage(name="frozen", loss=learning(), val=[0.3, 0.1])
    unfrozen = a_stage(loss=learning(start=3.0, end=0.1, speed=5), val=[1.0, 0.1])
    found = the_finding(frozen, unfrozen)
    assert (found.trouble, found.stage) == ("rate too high", "unfrozen")
    assert "rose from 0.10 (the stage before, steps 181–200)" in found.evidence


def test_a_small_rise_after_unfreezing_is_usual():
    frozen = a_stage(name="frozen", loss=learning(), val=[0.3, 0.1])
    unfrozen = a_stage(loss=hump(top=0.3, start=0.12), val=[0.12, 0.2, 0.1])
    assert findings(frozen, unfrozen) == []


def test_a_loss_that_creeps_down_a_straight_line_says_that_the_rate_is_too_low():
    found = the_finding(
        a_stage(loss=lambda where: 2.3 - 0.4 * (where + 0.0025), val=[2.2, 2.1, 2.0], lr=3e-6)
    )
    assert found.trouble == "rate too low"
    assert "from 2.280 to 1.920 only, and in a straight line; a guess has 2.303" in found.evidence
    assert found.advice.startswith("stages.unfrozen.lr=3e-5 (now 3e-6)")


def test_a_loss_that_does_not_move_at_all_says_that_the_rate_is_too_low():
    found = the_finding(a_stage(loss=lambda where: 2.3, val=[2.3, 2.3, 2.3]))
    assert found.trouble == "rate too low"
    assert "no more than batches differ" in found.evidence


def test_a_high_loss_without_a_gradient_is_a_plateau():
    gradient = learning(start=4.0, end=0.01, speed=30)
    stage = a_stage(loss=learning(end=2.2, speed=30), gradient=gradient, val=[2.3, 2.2, 2.2])
    found = the_finding(stage)
    assert found.trouble == "plateau"
    assert "at a loss of 2.20" in found.evidence
    assert "`finetune optimizers --race`" in found.advice
    assert "weight_decay" not in found.advice
    assert the_finding(stage, weight_decay=0.9).advice.startswith("optimizer.weight_decay=0.01 (now 0.9), ")


def test_a_gradient_that_vanishes_only_with_the_rate_is_no_plateau():
    stage = a_stage(
        loss=learning(end=1.2), gradient=lambda where: 4.0 if where < 0.8 else 0.01, val=[1.4, 1.3, 1.2, 1.2]
    )
    assert the_finding(stage).trouble == "underfitting"


def test_of_steps_that_were_made_twice_the_last_count():
    events = [
        {"event": "stage", "stage": "a"},
        {"event": "step", "stage": "a", "step": 1, "loss": 3.0},
        {"event": "step", "stage": "a", "step": 2, "loss": 2.0},
        {"event": "step", "stage": "a", "step": 1, "loss": 1.0},
        {"event": "step", "stage": "b", "step": 1, "loss": 4.0},
    ]
    losses = {stage: [step["loss"] for step in steps] for stage, steps in steps_by_stage(events).items()}
    assert losses == {"a": [1.0, 2.0], "b": [4.0]}


def test_a_finding_reads_as_what_why_and_what_to_try():
    found = Finding("rate too low", "frozen", "the loss stood still", "stages.frozen.lr=1e-3 (now 1e-6)")
    assert str(found) == (
        "rate too low (stage frozen): the loss stood still\n  try stages.frozen.lr=1e-3 (now 1e-6)"
    )


def test_a_run_that_was_too_short_says_so(small_run):
    (found,) = json.loads((small_run / "report.json").read_text())["diagnosis"]
    assert found["trouble"] == "still improving"
    assert found["evidence"].startswith("6 steps brought the validation loss to ")


def test_a_run_ends_with_its_diagnosis_on_screen_and_in_both_reports(images, tmp_path):
    stages = "stages=[{name: slow, train: head, epochs: 8, lr: 1e-6}]"
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    result = run_finetune("train", config, "--run-dir", run, stages)
    assert result.exit_code == 0, result.output
    (found,) = json.loads((run / "report.json").read_text())["diagnosis"]
    assert (found["trouble"], found["stage"]) == ("rate too low", "slow")
    assert f"\nwhat the curves say:\n{Finding(**found)}\n" in result.output
    page = (run / "report.html").read_text()
    assert "<b>Rate too low</b>, stage slow: the training loss went from" in page


HEAD = "stages=[{{name: head, train: head, epochs: {epochs}, lr: {lr}}}]"
FEW = ("data.image_size=64", "data.images_per_class=2", "data.batch_size=10", "data.augment=none")
DECAY = "optimizer={name: momentum, weight_decay: 0.9}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "troubles"),
    [
        (("data.image_size=64",), []),
        ((HEAD.format(epochs=4, lr=0.3), DECAY), ["underfitting"]),
        ((*FEW, "stages.frozen.epochs=20", "stages.unfrozen.epochs=40"), ["overfitting"]),
        ((HEAD.format(epochs=2, lr=0.3),), ["rate too high"]),
        ((HEAD.format(epochs=2, lr=3e-6),), ["rate too low"]),
        ((HEAD.format(epochs=1, lr=3e-3),), ["still improving"]),
    ],
    ids=["well", "decay", "twenty images", "rate x 100", "rate / 1000", "one epoch"],
)
def test_a_training_made_to_go_wrong_is_told_what_is_wrong(tmp_path, overrides, troubles):
    run = tmp_path / "run"
    result = run_finetune("train", QUICKSTART, "--run-dir", run, "data.image_size=32", *overrides)
    assert result.exit_code == 0, result.output
    found = json.loads((run / "report.json").read_text())["diagnosis"]
    assert [finding["trouble"] for finding in found] == troubles
    assert ("what the curves say:" in result.output) == bool(troubles)
