import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import run_finetune, write_small_config
from curves import a_stage, findings, hump, learning, some_knobs, the_finding

from finetune.report.diagnosis import Finding, Predictions, StageCurves, diagnose

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


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
    assert "optimizer.weight_decay=0.1 (now 0.01)" in found.advice
    assert found.advice.endswith("or early_stopping.patience=3")


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
        "training loss 1.200 and validation loss 1.200 are both high (random guessing gives 2.303)"
    )
    assert found.advice == "optimizer.weight_decay=0.01 (now 0.9)"


def test_underfitting_without_much_decay_asks_for_more_to_learn_with():
    stage = a_stage(loss=learning(end=1.2), val=[1.4, 1.3, 1.2, 1.2])
    found = the_finding(stage, trains_all=False, augment="strong")
    assert found.advice.startswith(
        "stages.unfrozen.train=all, or one more stage that does, data.augment=standard (now strong)"
    )
    assert "weight_decay" not in found.advice


def test_what_label_smoothing_adds_to_the_training_loss_is_not_held_against_it():
    smoothed = some_knobs(label_smoothing=0.3)
    targets = [0.73, *[0.03] * 9]
    assert smoothed.least_loss == pytest.approx(-sum(p * math.log(p) for p in targets))
    assert some_knobs().least_loss == 0
    stage = a_stage(loss=learning(end=smoothed.least_loss + 0.05), val=[0.9, 0.8, 0.75, 0.75])
    assert findings(stage, label_smoothing=0.3) == []
    assert the_finding(stage).trouble == "underfitting"


def test_where_an_image_may_have_several_classes_a_guess_is_how_many_have_each():
    knobs = some_knobs(shares=(0.5, 0.1), label_smoothing=0.2)
    rare = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert knobs.chance_loss == pytest.approx((math.log(2) + rare) / 2)
    assert knobs.least_loss == pytest.approx(rare)  # targets of 0.1 and 0.9
    assert some_knobs(shares=(0.5, 1.0)).chance_loss == pytest.approx(math.log(2) / 2)
    still = a_stage(loss=lambda where: 0.68, val=[0.68] * 3)
    (found,) = findings(still, shares=(0.5, 0.5, 0.4))
    assert found.trouble == "nothing learned"
    assert "random guessing gives 0.686" in found.evidence


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
    assert (
        found.evidence
        == "6 steps brought the validation loss to 2.000, its lowest; random guessing gives 2.303"
    )
    assert "data.batch_size" in found.advice


def test_only_the_last_stage_is_asked_how_it_ended():
    first = a_stage(name="frozen", loss=lambda where: 2.3 - 1.5 * where, val=[0.9])
    assert findings(first, a_stage(loss=learning(start=0.8, end=0.1), val=[0.2, 0.1])) == []
    assert the_finding(first).trouble == "still improving"


def test_a_loss_that_rises_with_the_rate_says_that_the_rate_is_too_high():
    found = the_finding(a_stage(loss=hump(top=6.0), val=[5.0, 7.0, 1.0, 0.5]))
    assert (found.trouble, found.stage) == ("rate too high", "unfrozen")
    assert found.evidence.startswith("the training loss rose from 0.50 (steps 1–20) to 6.00 (steps 41–60)")
    assert "more than random guessing gives (2.30)" in found.evidence
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


def creeping(where):
    """Return a loss that falls by a sixth, along a straight line."""
    return 2.3 - 0.4 * (where + 0.0025)


def test_a_loss_that_creeps_down_a_straight_line_says_that_the_rate_is_too_low():
    found = the_finding(a_stage(loss=creeping, val=[2.2, 2.1, 2.0], lr=3e-6))
    assert found.trouble == "rate too low"
    assert found.evidence == (
        "in 200 steps the training loss fell only from 2.280 to 1.920, in a straight line; "
        "random guessing gives 2.303"
    )


@pytest.mark.parametrize(
    ("lr", "auto"),
    [
        (3e-6, "auto (now 3e-6)"),
        ("slice(3e-6)", '"slice(auto)" (now slice(3e-6))'),
        ("slice(1e-6, 4e-6)", '"slice(auto/4, auto)" (now slice(1e-6, 4e-6))'),
    ],
)
def test_a_low_rate_is_to_be_measured_in_its_own_form_and_no_higher_one_is_named(lr, auto):
    found = the_finding(a_stage(loss=creeping, val=[2.2, 2.1, 2.0], lr=lr))
    assert found.advice == (
        f"stages.unfrozen.lr={auto}, which measures the rate, or stages.unfrozen.epochs=6 (now 3)"
    )


def test_a_rate_that_was_measured_is_not_to_be_measured_again():
    measured = replace(a_stage(loss=creeping, val=[2.2, 2.1, 2.0]), rate_was_found=True)
    assert the_finding(measured).advice == "stages.unfrozen.epochs=6 (now 3)"


def test_a_loss_that_does_not_move_at_all_says_that_nothing_was_learned_and_blames_no_rate():
    found = the_finding(a_stage(loss=lambda where: 2.31 - 0.01 * where, val=[2.3, 2.3, 2.3]))
    assert found.trouble == "nothing learned"
    assert found.evidence == (
        "in 200 steps the training loss fell from 2.310 to 2.301, within the noise between batches; "
        "random guessing gives 2.303"
    )


def test_a_loss_that_rises_by_noise_is_said_to_rise():
    noisy = a_stage(loss=lambda where: 0.69 + 0.05 * where, val=[0.7, 0.7], steps=30, noise=0.2)
    found = the_finding(noisy, classes=2)
    assert found.trouble == "nothing learned"
    assert "the training loss rose from 0.692 to 0.775, within the noise between batches" in found.evidence


def test_a_rise_beyond_the_noise_is_not_called_noise():
    found = the_finding(a_stage(loss=lambda where: 2.3 + 0.5 * where, val=[2.4, 2.4]))
    assert found.trouble == "nothing learned"
    assert "rose from 2.324 to 2.774; random guessing" in found.evidence


def test_thirty_noisy_steps_of_a_model_that_got_better_ask_for_more_of_them_only():
    noisy = a_stage(
        loss=lambda where: 0.69 + 0.05 * where, val=[0.68, 0.6], steps=30, noise=0.2, accuracy=0.71
    )
    found = the_finding(noisy, classes=2)
    assert found.trouble == "still improving"
    assert found.advice.startswith("stages.unfrozen.epochs=4 (now 2), or a smaller data.batch_size")


def test_a_few_steps_that_brought_nothing_matter_only_at_the_end():
    frozen = a_stage(name="frozen", loss=lambda where: 2.3, val=[2.3], steps=30)
    assert the_finding(frozen).trouble == "nothing learned"
    assert findings(frozen, a_stage(loss=learning(), val=[0.2, 0.1])) == []


def test_a_validation_loss_that_explodes_while_nothing_is_learned_says_that_the_rate_is_too_high():
    frozen = a_stage(name="frozen", loss=learning(end=1.9), val=[2.0], accuracy=0.3)
    unfrozen = a_stage(loss=lambda where: 1.9, train=[1.9, 1.9], val=[40.0, 9.0], accuracy=0.3)
    found = the_finding(frozen, unfrozen)
    assert found.trouble == "rate too high"
    assert found.evidence == (
        "the validation loss rose from 2.000 (stage frozen, epoch 1) to 9.000, more than random guessing "
        "gives (2.303), while the training loss was still 1.900"
    )
    assert found.advice.startswith('stages.unfrozen.lr="slice(3.33e-5, 3.33e-4)"')


def predictions(predicted, actual, loss):
    names = tuple("abcdefghij"[: len(actual)])
    return Predictions(names, tuple(predicted), tuple(actual), loss)


def test_a_model_that_gives_all_images_one_class_is_called_collapsed():
    stage = a_stage(loss=lambda where: 2.3 + 0.1 * where, val=[3.1, 3.02])
    (found,) = diagnose([stage], some_knobs(pretrained=False), predictions([0, 40, 0], [10, 10, 20], 3.02))
    assert found.trouble == "collapsed"
    assert found.evidence == (
        "one class ('b') gets every prediction, for all 40 validation images, and nothing was learned: the "
        "validation loss is 3.020; a model that does not look at the images can have 1.040"
    )
    assert found.advice == (
        'stages.unfrozen.lr="slice(auto/10, auto)" (now slice(1e-4, 1e-3)), which measures the rate, or '
        "stages.unfrozen.epochs=4 (now 2), or model.weights=default, which starts from a trained network"
    )


def test_a_collapse_after_too_high_a_rate_repeats_no_advice_on_the_rate():
    stage = a_stage(loss=hump(top=6.0), val=[7.0, 7.5])
    high, collapsed = diagnose([stage], some_knobs(), predictions([40, 0], [20, 20], 7.5))
    assert (high.trouble, collapsed.trouble) == ("rate too high", "collapsed")
    assert collapsed.advice == "a lower rate, as above, in stage unfrozen"


def test_one_class_for_all_images_at_the_loss_of_chance_is_nothing_learned():
    stage = a_stage(loss=lambda where: 0.69, val=[0.69, 0.69])
    (found,) = diagnose([stage], some_knobs(classes=2), predictions([40, 0], [20, 20], math.log(2)))
    assert found.trouble == "nothing learned"
    assert "one class ('a') gets every prediction" in found.evidence


@pytest.mark.parametrize(
    ("predicted", "actual", "loss"),
    [
        ([39, 1], [20, 20], 3.0),  # not all
        ([40, 0], [40, 0], 3.0),  # all of them are of this class
        ([40, 0], [36, 4], 0.3),  # most are, and the probabilities have learned something (constant: 0.325)
    ],
)
def test_a_class_that_gets_most_predictions_is_no_collapse(predicted, actual, loss):
    stage = a_stage(loss=learning(), val=[0.3, 0.1])
    assert diagnose([stage], some_knobs(classes=2), predictions(predicted, actual, loss)) == []


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


def test_a_finding_reads_as_what_why_and_what_to_try():
    found = Finding("rate too low", "frozen", "the loss stood still", "stages.frozen.lr=auto (now 1e-6)")
    assert str(found) == (
        "rate too low (stage frozen): the loss stood still\n  try stages.frozen.lr=auto (now 1e-6)"
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
    assert (found["trouble"], found["stage"]) == ("nothing learned", "slow")
    assert f"\ndiagnosis:\n{Finding(**found)}\n" in result.output
    page = (run / "report.html").read_text()
    assert "<b>Nothing learned</b>, stage slow: " in page


HEAD = "stages=[{{name: head, train: head, epochs: {epochs}, lr: {lr}}}]"
FEW = ("data.image_size=64", "data.images_per_class=2", "data.batch_size=10", "data.augment=none")
DECAY = "optimizer={name: momentum, weight_decay: 0.33}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "troubles"),
    [
        (("data.image_size=64",), []),
        ((HEAD.format(epochs=4, lr=0.3), DECAY), ["underfitting"]),
        ((*FEW, "stages.frozen.epochs=20", "stages.unfrozen.epochs=40"), ["overfitting"]),
        ((HEAD.format(epochs=2, lr=0.3),), ["rate too high"]),
        ((HEAD.format(epochs=4, lr=3e-6),), ["rate too low"]),
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
    assert ("diagnosis:" in result.output) == bool(troubles)


# A backbone that learns in vain


def a_stage_with(accuracies, val, **curves):
    stage = a_stage(val=val or [0.3] * len(accuracies), **curves)
    rows = [replace(row, val_accuracy=one) for row, one in zip(stage.rows, accuracies, strict=True)]
    return replace(stage, rows=rows)


def head_alone(*accuracies, val=None):
    stage = a_stage_with(accuracies, val, loss=learning(end=0.2), name="frozen", lr=1e-2)
    return replace(stage, head_alone=True)


def everything(*accuracies, val=None):
    return a_stage_with(accuracies, val, loss=learning(start=0.2, end=0.15))


def test_a_backbone_that_learns_in_vain_is_said_with_what_it_took():
    found = the_finding(head_alone(0.92, 0.94), everything(0.93, 0.94, 0.93, 0.9, 0.94, 0.92))
    assert (found.trouble, found.stage) == ("no gain", "unfrozen")
    assert found.evidence == (
        "val_accuracy 94.00% with the head alone (stage frozen, epoch 2), and val_accuracy 94.00% after it "
        "in 6 epochs, 75% of the time"
    )
    assert found.advice.startswith("leaving out stage unfrozen, or ")


@pytest.mark.parametrize(
    "stages",
    [
        (head_alone(0.94), everything(0.92, 0.95)),  # it gained
        (head_alone(0.94), everything(0.94, 0.93, val=[0.27, 0.3])),  # it is surer
        (head_alone(0.94),),
        (everything(0.94, 0.93),),
        (
            head_alone(0.5, val=[1.9]),
            everything(0.5, 0.4, val=[1.2, 1.9]),
        ),  # it has not learned
    ],
)
def test_where_it_gained_or_nothing_is_to_be_left_out_nothing_is_said(stages):
    assert "no gain" not in [found.trouble for found in findings(*stages)]


def test_what_is_gained_is_judged_by_the_monitor():
    stages = head_alone(0.94, val=[0.3]), everything(0.96, val=[0.29])
    assert findings(*stages) == []
    assert the_finding(*stages, monitor="val_macro_f1").evidence.startswith(
        "val_macro_f1 0.1000 with the head"
    )
    assert findings(*stages, monitor="val_loss") == []
