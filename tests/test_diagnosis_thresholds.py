"""Both sides of every threshold of the diagnosis; the curves of each case lie just below and just above one.

Losses are of ten classes: random guessing gives ln 10 = 2.3026.
"""

import math
from dataclasses import replace
from typing import get_args

import pytest
from curves import a_stage, findings, hump, some_knobs

from finetune.choices import Augment
from finetune.report.diagnosis import Part, Predictions, StageCurves, diagnose
from finetune.report.diagnosis.stage_rules import is_clear

CHANCE = math.log(10)


def flat(loss):
    return lambda where: loss


def line(start, end):
    return lambda where: start + (end - start) * where


def quiet(loss, val, **options):
    """Make a stage without noise whose last epoch has the given validation loss."""
    return a_stage(loss=loss, val=val, **({"noise": 1e-4} | options))


def troubles(*stages, **knobs):
    return [finding.trouble for finding in findings(*stages, **knobs)]


def advice(*stages, **knobs):
    (found,) = findings(*stages, **knobs)
    return found.advice


def both_sides(make, below, above, trouble):
    """Tell whether a trouble is found above a threshold and not below it."""
    return (trouble in troubles(make(below)), trouble in troubles(make(above)))


ONLY_ABOVE, ONLY_BELOW = (False, True), (True, False)


def test_a_difference_is_clear_above_three_standard_errors():
    one = Part(first=1, last=9, loss=1.0, error=0.3, gradient=1.0, rate=1.0)
    other = replace(one, error=0.4)  # together 0.5
    assert not is_clear(1.499, one, other)
    assert is_clear(1.501, one, other)


# Rate too high


def test_a_loss_has_risen_when_it_is_half_as_high_again():
    assert both_sides(lambda top: quiet(hump(top, 1.0), [0.5]), 1.49, 1.51, "rate too high") == ONLY_ABOVE


def test_a_loss_has_risen_when_it_is_a_fifth_of_chance_higher():
    # 0.5 + 0.2 × 2.3026 = 0.9605
    assert both_sides(lambda top: quiet(hump(top, 0.5), [0.5]), 0.955, 0.965, "rate too high") == ONLY_ABOVE


def test_the_rate_is_divided_by_ten_where_the_loss_is_worse_than_chance():
    assert "slice(3.33e-5, 3.33e-4)" in advice(quiet(hump(2.29, 0.5), [0.5]))
    assert "slice(1e-5, 1e-4)" in advice(quiet(hump(2.31, 0.5), [0.5]))


def exploded(*, low=1.0, high=9.0, train=2.0):
    return quiet(flat(2.0), [low, high], train=[2.0, train], accuracy=0.5)


def test_a_validation_loss_has_exploded_when_it_is_half_as_high_again():
    assert both_sides(lambda low: exploded(low=low, high=3.0), 2.01, 1.99, "rate too high") == ONLY_ABOVE


def test_a_validation_loss_has_exploded_when_it_is_worse_than_chance():
    assert both_sides(lambda high: exploded(high=high), 2.30, 2.31, "rate too high") == ONLY_ABOVE


def test_where_training_images_are_learned_a_validation_loss_that_rises_is_no_matter_of_the_rate():
    # 0.5 × 2.3026 = 1.1513
    assert both_sides(lambda train: exploded(train=train), 1.145, 1.157, "rate too high") == ONLY_ABOVE


# Plateau


def stuck(*, loss=2.2, gradient=0.01, length=0.2, peak=1.0):
    """Make a stage whose gradient is small in the steps from 0.3 on, where the rate is near its peak."""
    return quiet(
        flat(loss), [2.2, 2.2], gradient=lambda w: gradient if 0.3 <= w < 0.3 + length else peak, accuracy=0.5
    )


def test_a_plateau_has_a_loss_above_three_tenths_of_chance():
    assert both_sides(lambda loss: stuck(loss=loss), 0.686, 0.696, "plateau") == ONLY_ABOVE


def test_a_plateau_has_gradients_below_a_twentieth_of_the_longest():
    assert both_sides(lambda gradient: stuck(gradient=gradient), 0.049, 0.051, "plateau") == ONLY_BELOW


def test_a_plateau_has_two_parts_of_ten_at_least():
    assert both_sides(lambda length: stuck(length=length), 0.1, 0.2, "plateau") == ONLY_ABOVE


def test_a_plateau_is_where_the_rate_is_above_a_tenth_of_its_peak():
    def stage(share):
        made = stuck()
        steps = [step | {"lrs": [1.0 if i < 60 else share]} for i, step in enumerate(made.steps)]
        return replace(made, steps=steps)

    assert both_sides(stage, 0.099, 0.101, "plateau") == ONLY_ABOVE


# Rate too low, nothing learned


def creeping(end, *, steps=200):
    return quiet(line(2.0, end), [2.0, 2.0], steps=steps)


def test_a_rate_is_not_called_too_low_before_fifty_steps():
    assert both_sides(lambda steps: creeping(1.8, steps=steps), 49, 50, "rate too low") == ONLY_ABOVE


def test_a_loss_that_fell_by_a_quarter_was_not_slow():
    # The means of the first and the last tenth are 1.975 and 2 − 0.95 × fall, a quarter less where …
    def stage(fall):
        return quiet(line(2.0, 2.0 - fall), [2.0, 2.0])

    first, share = 2.0 - 0.05, 0.25
    fall = share * first / 0.9
    assert both_sides(stage, 0.97 * fall, 1.08 * fall, "rate too low") == ONLY_BELOW


@pytest.mark.parametrize(("later", "slow"), [(0.28, False), (0.32, True)])
def test_a_fall_is_a_straight_line_while_its_last_third_brings_three_tenths_of_the_one_before(later, slow):
    made = quiet(flat(2.0), [2.0, 2.0])
    bounds = [part.last for part in made.thirds]
    levels = (2.0, 1.9, 1.9 - 0.1 * later)
    losses = [levels[sum(i >= bound for bound in bounds)] for i in range(200)]
    steps = [
        step | {"loss": loss + 1e-4 * (i % 2)}
        for i, (step, loss) in enumerate(zip(made.steps, losses, strict=True))
    ]
    assert ("rate too low" in troubles(replace(made, steps=steps))) == slow


def test_a_stage_is_hardly_learned_above_half_of_chance():
    def stage(loss):
        return quiet(flat(loss), [2.3, 2.3])

    assert both_sides(stage, 1.146, 1.157, "nothing learned") == ONLY_ABOVE


def test_a_validation_loss_a_twentieth_lower_is_something_learned():
    # 0.95 × 2.3026 = 2.1875
    assert both_sides(lambda val: quiet(flat(2.2), [2.3, val]), 2.18, 2.195, "nothing learned") == ONLY_ABOVE


def test_what_the_stage_before_has_learned_is_not_counted_again():
    frozen = quiet(lambda w: 2.3 - 0.9 * min(1, 2 * w), [1.5], name="frozen", accuracy=0.1)
    assert "nothing learned" in troubles(frozen, quiet(flat(1.4), [1.45], accuracy=0.1))  # 0.967 × 1.5
    assert "nothing learned" not in troubles(frozen, quiet(flat(1.4), [1.40], accuracy=0.1))  # 0.933 × 1.5


def test_a_balanced_accuracy_a_fifth_of_the_way_from_chance_is_something_learned():
    # 0.1 + 0.2 × 0.9 = 0.28
    def stage(accuracy):
        return quiet(flat(2.3), [2.3, 2.3], accuracy=accuracy)

    assert both_sides(stage, 0.275, 0.285, "nothing learned") == ONLY_BELOW


def unmoved(*, classes, steps):
    """Make a stage from its accuracy whose losses stay at chance."""
    chance = math.log(classes)
    return lambda accuracy: quiet(flat(chance), [chance, chance], steps=steps, accuracy=accuracy)


@pytest.mark.parametrize(
    ("classes", "steps", "accuracy"),
    [
        (2, 200, 0.6),  # a fifth of the way from chance to 1
        (100, 200, 0.03),  # three times chance
        (2, 14, 0.55),  # a tenth of the way
        (10, 14, 0.15),  # half as much again as chance
        (2, 49, 0.55),
        (2, 50, 0.6),
    ],
)
def test_nothing_is_learned_near_chance_and_the_fewer_steps_the_nearer(classes, steps, accuracy):
    make = unmoved(classes=classes, steps=steps)
    found = [
        "nothing learned" in troubles(make(factor * accuracy), classes=classes) for factor in (0.99, 1.01)
    ]
    assert found == [True, False]


def test_fourteen_steps_to_twice_the_accuracy_of_chance_are_not_called_nothing():
    # Losses of a new head are above chance for longer than its ranks are.
    stage = quiet(line(2.5, 2.45), [2.4, 2.35], steps=14, accuracy=0.2)
    assert troubles(stage) == []
    assert troubles(replace(stage, rows=[replace(row, val_balanced_accuracy=0.1) for row in stage.rows])) == [
        "nothing learned"
    ]


def test_a_fall_that_ends_above_chance_is_nothing_learned():
    def stage(end):
        return quiet(line(8.0, end), [9.0, 9.0])

    assert both_sides(stage, 1.95, 2.05, "nothing learned") == ONLY_ABOVE


def predictions(loss, predicted=(40, 0), actual=(20, 20)):
    return Predictions(("a", "b"), predicted, actual, loss)


@pytest.mark.parametrize(
    ("share", "trouble"),
    [(0.94, None), (0.96, "nothing learned"), (1.04, "nothing learned"), (1.06, "collapsed")],
)
def test_one_class_for_all_is_nothing_learned_near_chance_and_a_collapse_above(share, trouble):
    stage = a_stage(loss=lambda where: 0.1 + 0.5 * math.exp(-12 * where), val=[0.3, 0.1])
    found = diagnose([stage], some_knobs(classes=2), predictions(share * math.log(2)))
    assert [finding.trouble for finding in found] == ([trouble] if trouble else [])


# Overfitting


def parted(*, train=0.02, val=0.7, lowest=0.5):
    return quiet(flat(0.02), [0.8, lowest, val], train=[2.0, 1.9, train])


def test_losses_are_apart_by_a_tenth_of_chance():
    assert (
        both_sides(lambda val: parted(train=0.05, val=val, lowest=0.2), 0.275, 0.285, "overfitting")
        == ONLY_ABOVE
    )


def test_losses_are_apart_when_one_is_twice_the_other():
    assert both_sides(lambda train: parted(train=train, val=1.0), 0.505, 0.495, "overfitting") == ONLY_ABOVE


def test_the_validation_loss_has_risen_by_a_twentieth():
    assert both_sides(lambda val: parted(val=val), 0.524, 0.526, "overfitting") == ONLY_ABOVE


def test_only_training_images_that_are_learned_are_learned_by_heart():
    assert both_sides(lambda train: parted(train=train, val=4.0), 1.157, 1.146, "overfitting") == ONLY_ABOVE


# Still improving


def test_the_validation_loss_still_improves_within_a_fiftieth_of_its_lowest():
    def stage(lowest):
        return quiet(line(2.3, 0.8), [1.9, lowest, 1.0])

    assert both_sides(stage, 1 / 1.03, 1 / 1.01, "still improving") == ONLY_ABOVE


def in_thirds(*levels):
    """Make a stage whose loss is level in each third of the sum of its rates."""
    made = quiet(flat(1.0), [1.0, 0.2])
    bounds = [part.last for part in made.thirds]
    losses = [levels[min(2, sum(i >= bound for bound in bounds))] for i in range(200)]
    pairs = enumerate(zip(made.steps, losses, strict=True))
    return replace(made, steps=[step | {"loss": loss + 1e-4 * (i % 2)} for i, (step, loss) in pairs])


def test_more_epochs_are_worth_three_hundredths_of_chance():
    # 0.03 × 2.3026 = 0.0691, of a fall that is as large as the one before
    assert (
        both_sides(lambda fall: in_thirds(0.3 + 2 * fall, 0.3 + fall, 0.3), 0.068, 0.070, "still improving")
        == ONLY_ABOVE
    )


def test_a_fall_fades_below_a_fifth_of_the_loss():
    # The next fall would be 0.6 of this one, so the loss is high enough for that to be worth it.
    def stage(fall):
        return in_thirds(1.0 + fall / 0.6, 1.0, 1.0 - fall)

    assert both_sides(stage, 0.195, 0.205, "still improving") == ONLY_ABOVE


def test_a_fall_fades_below_seven_tenths_of_the_one_before():
    def stage(earlier):
        return in_thirds(1.0 + earlier, 1.0, 0.85)

    assert both_sides(stage, 0.15 / 0.69, 0.15 / 0.71, "still improving") == ONLY_ABOVE


@pytest.mark.parametrize(("val", "found"), [(0.685, []), (0.696, ["still improving"])])
def test_after_a_few_steps_a_loss_is_high_above_three_tenths_of_chance(val, found):
    assert troubles(quiet(line(2.3, 0.8), [0.9, val], train=[1.0, 1.0], steps=49)) == found


@pytest.mark.parametrize(("val", "found"), [(2.29, ["still improving"]), (2.31, [])])
def test_a_few_steps_that_end_above_chance_are_no_progress(val, found):
    assert troubles(quiet(line(2.3, 1.9), [2.5, val], train=[1.0, 1.0], accuracy=0.5, steps=30)) == found


# Underfitting


@pytest.mark.parametrize(("loss", "found"), [(0.685, []), (0.696, ["underfitting"])])
@pytest.mark.parametrize("lower", ["train", "val"])
def test_both_losses_are_high_above_three_tenths_of_chance(loss, found, lower):
    losses = {"train": [1.0, 1.0], "val": [1.0, 1.0]} | {lower: [loss, loss]}
    assert troubles(quiet(flat(1.0), losses["val"], train=losses["train"])) == found


@pytest.mark.parametrize(("steps", "found"), [(49, []), (50, ["underfitting"])])
def test_a_model_is_not_called_too_small_before_fifty_steps(steps, found):
    assert troubles(quiet(flat(1.0), [0.99, 1.0], train=[1.0, 1.0], steps=steps)) == found


def test_a_loss_that_fell_by_three_hundredths_of_chance_in_the_last_third_is_not_called_final():
    def stage(fall):  # 0.0691
        return replace(
            in_thirds(1.0 + fall, 1.0 + fall, 1.0), rows=a_stage(loss=flat(1.0), val=[0.9, 1.0]).rows
        )

    assert both_sides(stage, 0.068, 0.070, "underfitting") == ONLY_BELOW


def test_weight_decay_is_lowered_above_a_tenth_and_raised_below_it():
    underfitting, overfitting = quiet(flat(1.0), [1.0, 1.0], train=[1.0, 1.0]), parted()
    assert "weight_decay" not in advice(underfitting, weight_decay=0.1)
    assert advice(underfitting, weight_decay=0.11) == "optimizer.weight_decay=0.01 (now 0.11)"
    assert "optimizer.weight_decay=0.1 (now 0.09)" in advice(overfitting, weight_decay=0.09)
    assert "weight_decay" not in advice(overfitting, weight_decay=0.1)
    assert "weight_decay" not in advice(stuck(), weight_decay=0.1)
    assert "optimizer.weight_decay=0.01 (now 0.11)" in advice(stuck(), weight_decay=0.11)


def test_augmentation_is_lowered_and_raised_to_standard_only():
    underfitting, overfitting = quiet(flat(1.0), [1.0, 1.0], train=[1.0, 1.0]), parted()
    lowered = {augment: advice(underfitting, augment=augment) for augment in get_args(Augment)[2:]}
    raised = {augment: advice(overfitting, augment=augment) for augment in ("light", "standard")}
    assert ["data.augment" in text for text in lowered.values()] == [False, True, True, True]
    assert ["data.augment" in text for text in raised.values()] == [True, False]


# Parts


@pytest.mark.parametrize(("steps", "parts"), [(7, 0), (8, 2), (39, 9), (40, 10), (400, 10)])
def test_a_stage_has_a_part_for_each_four_steps_and_ten_at_most(steps, parts):
    assert len(a_stage(loss=flat(1.0), val=[1.0], steps=steps).parts) == parts


@pytest.mark.parametrize(("steps", "thirds"), [(12, 0), (13, 3)])
def test_each_third_has_four_steps_at_least(steps, thirds):
    made = a_stage(loss=flat(1.0), val=[1.0], steps=steps)
    level = [step | {"lrs": [1.0]} for step in made.steps]
    assert len(StageCurves(made.name, 1, made.lr, made.rows, level).thirds) == thirds


# Mixed images


def test_mixtures_that_stay_unknown_are_learned_where_whole_images_are():
    """The training loss of mixtures falls little, in a straight line, and stays high."""

    def stage(val):
        return a_stage(loss=line(1.85, 1.75), val=[2.2, val], noise=0.01, accuracy=0.9)

    half = 0.5 * CHANCE
    assert troubles(stage(half - 0.01)) == ["rate too low"]
    assert "rate too low" not in troubles(stage(half - 0.01), mixed=True)
    assert troubles(stage(half + 0.01), mixed=True) == ["rate too low"]


def test_what_mixing_leaves_is_no_part_of_a_fall():
    """A fall of 0.3 is a quarter of 1.2, and less of 2."""

    def stage(fall):
        return a_stage(loss=line(2.0, 2.0 - fall), val=[2.2, 2.1], noise=0.01)

    assert troubles(stage(0.35)) == ["rate too low"]
    assert "rate too low" not in troubles(stage(0.35), least_loss=0.8)


def test_where_mixtures_are_hard_they_can_be_left_out():
    underfitting = quiet(flat(2.0), [1.5, 1.4])
    assert "no data.mixup" not in advice(underfitting)
    assert "no data.mixup and no data.cutmix" in advice(underfitting, mixed=True)
