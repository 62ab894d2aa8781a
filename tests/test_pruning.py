"""When a trial ends early: by numbers that can be checked by hand, and never by chance."""

import math
from dataclasses import replace

import numpy as np
import pytest

from finetune.commands.sweep.pruning import PruningRule, counted_images, decide
from finetune.metrics.single_label import ClassScores, SingleLabelScores

MEDIAN = PruningRule("median", after=2, least=4, margin=None)
OTHERS = {0: 0.8, 1: 0.9, 2: 0.7, 3: 0.8}


def test_a_trial_is_ended_that_is_below_the_median_by_more_than_two_standard_errors():
    decision = decide(MEDIAN, 2, [0.4, 0.6], OTHERS, images=100)
    assert decision is not None
    assert (decision.value, decision.bar, decision.pruned) == (0.6, 0.8, True)
    assert decision.margin == pytest.approx(2 * math.sqrt((0.6 * 0.4 + 0.8 * 0.2) / 100))
    assert decision.to_dict()["others"] == {"0": 0.8, "1": 0.9, "2": 0.7, "3": 0.8}
    assert "0.6000 after epoch 2, the median of 4 others 0.8000, margin 0.1265" in str(decision)


@pytest.mark.parametrize(
    ("values", "epoch", "others", "images"),
    [
        ([0.4, 0.6], 2, OTHERS, 50),  # a margin of 0.179 and 0.2 behind: ended; of 39 images not
        ([0.6], 1, OTHERS, 1000),
        ([0.4, 0.6], 2, {0: 0.8, 1: 0.9, 2: 0.7}, 1000),
        ([0.8, 0.1], 2, OTHERS, 1000),
        ([math.nan, math.nan], 2, OTHERS, 1000),
    ],
    ids=["enough behind", "too early", "too few others", "its best counts", "no number"],
)
def test_what_spares_a_trial(values, epoch, others, images):
    decision = decide(MEDIAN, epoch, values, others, images=images)
    assert (decision is not None and decision.pruned) == (images == 50)
    fewer = decide(MEDIAN, epoch, values, others, images=39)
    assert fewer is None or not fewer.pruned


def test_equal_recipes_are_not_ended_for_what_their_seeds_do():
    """Of trials that are right with the same probability, almost none may end."""
    generator, images, ended = np.random.default_rng(0), 150, 0
    for _ in range(500):
        scores = generator.binomial(images, 0.85, 12) / images
        others = {number: float(score) for number, score in enumerate(scores[1:])}
        decision = decide(MEDIAN, 3, [float(scores[0])], others, images=images)
        ended += decision is not None and decision.pruned
    assert ended / 500 < 0.02


def test_halving_asks_at_its_rungs_alone_and_lets_a_third_go_on():
    rule = PruningRule("halving", after=1, least=3, margin=0.0)
    others = {number: 0.9 - number / 100 for number in range(5)}
    asked = [epoch for epoch in range(1, 30) if decide(rule, epoch, [0.5], others, images=100) is not None]
    assert asked == [1, 3, 9, 27]
    assert decide(rule, 3, [0.89], others, images=100) is None  # second of six
    third = decide(rule, 3, [0.885], others, images=100)
    assert third is not None
    assert (third.bar, third.pruned) == (0.89, True)


def test_of_a_loss_the_lower_one_is_better_and_its_margin_is_in_nats():
    rule = replace(MEDIAN, margin=0.3, higher_is_better=False)
    others = dict.fromkeys(range(4), 1.0)
    assert decide(rule, 2, [0.9], others, images=10) is None
    spared, ended = (decide(rule, 2, [loss], others, images=10) for loss in (1.2, 1.4))
    assert spared is not None
    assert ended is not None
    assert (spared.pruned, ended.pruned, ended.value, ended.bar) == (False, True, 1.4, 1.0)


def test_rare_classes_leave_fewer_images_to_a_mean_over_classes():
    def scores(*counts):
        rows = tuple(ClassScores(str(n), 0.5, 0.5, 0.5, count) for n, count in enumerate(counts))
        names = tuple(row.name for row in rows)
        return SingleLabelScores(1.0, 0.5, 0.5, {}, rows, (), names, sum(counts))

    assert counted_images(scores(90, 10), "val_accuracy") == 100
    assert counted_images(scores(50, 50), "val_balanced_accuracy") == 100
    assert counted_images(scores(90, 10), "val_macro_f1") == pytest.approx(4 / (1 / 90 + 1 / 10))
