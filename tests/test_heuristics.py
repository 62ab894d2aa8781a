"""Curves whose right answer is known, and curves that no answer should be read from."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.lr_finder.heuristics import (
    MIN_POINTS,
    ORDER,
    Curve,
    Suggestion,
    ceiling,
    choose,
    decades,
    divergence,
    gaussian_smooth,
    judge,
    judge_against_chance,
    knee,
    longest_descent,
    minimum,
    slide,
    steepest,
    suggest,
    valley,
)

STEPS = 100
LRS = tuple(10 ** (-7 + 8 * i / (STEPS - 1)) for i in range(STEPS))


def curve_of(loss_at, noise=0.0, smoothing=3.0, seed=0):
    """Return the curve of a loss as a function of log10 of the rate."""
    random = np.random.default_rng(seed)
    losses = [loss_at(math.log10(lr)) + noise * random.normal() for lr in LRS]
    return Curve(LRS, tuple(losses), smoothing)


def typical(x):
    """Fall from 2.3 to 0.5 around 1e-3, explode beyond 1e-1."""
    return 2.3 - 1.8 / (1 + math.exp(-4 * (x + 3))) + math.exp(6 * (x + 1))


def log10_of(suggestion):
    assert suggestion.lr is not None, suggestion.reason
    return math.log10(suggestion.lr)


def test_steepest_is_where_a_logistic_fall_is_steepest():
    assert log10_of(steepest(curve_of(typical))) == pytest.approx(-3, abs=0.1)


def test_minimum_is_a_tenth_of_the_rate_at_the_lowest_loss():
    def parabola(x):
        return 1 + (x + 2) ** 2 / 10

    assert log10_of(minimum(curve_of(parabola))) == pytest.approx(-3, abs=0.1)


def test_the_knee_is_where_95_percent_of_the_fall_is_done():
    def ramp(x):
        return 2 - min(max((x + 5) / 2, 0), 1)  # from 2 at 1e-5 down to 1 at 1e-3

    assert log10_of(knee(curve_of(ramp, smoothing=0))) == pytest.approx(-5 + 0.985 * 2, abs=0.09)


def test_the_valley_is_the_middle_of_the_longest_descent():
    losses = [1.0] * 20 + [1 - 0.01 * i for i in range(1, 61)] + [5.0] * 20
    # 61 points fall, from the last 1.0 (point 19) to point 79; half of 61 is, as fastai rounds, 20 + 10.
    assert valley(Curve(LRS, tuple(losses), 0)).lr == LRS[79 - 61 + 20 + 10]


def test_the_slide_ends_where_the_slope_is_the_same_at_both_ends_of_it():
    flat, fall = [2.0] * 60, [2.0 - 0.02 * i for i in range(20)]
    explosion = [1.6 + 0.01 * i * i for i in range(20)]
    # The right end leaves the explosion at point 79; the left end, 15 before it, is on the same fall.
    assert slide(Curve(LRS, (*flat, *fall, *explosion), 0)).lr == LRS[79 - 15 + 1]


def test_without_an_explosion_there_is_no_slide():
    suggestion = slide(Curve(LRS, tuple(2.0 - 0.01 * i for i in range(STEPS)), 0))
    assert suggestion.lr is None
    assert "does not turn up" in suggestion.reason


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 7.0, 1e6])
@given(seed=st.integers(0, 50))
def test_the_scale_of_the_loss_changes_nothing(scale, seed):
    curve = curve_of(typical, noise=0.05, seed=seed)
    scaled = replace(curve, losses=tuple(scale * loss for loss in curve.losses))
    assert suggest(scaled) == suggest(curve)
    assert divergence(scaled) == divergence(curve)


@given(seed=st.integers(0, 500))
def test_noise_of_the_batches_moves_knee_and_steepest_by_less_than_a_decade(seed):
    clean, noisy = curve_of(typical), curve_of(typical, noise=0.15, seed=seed)
    for heuristic in (knee, steepest):
        assert abs(log10_of(heuristic(noisy)) - log10_of(heuristic(clean))) < 1


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (Curve(LRS[:9], (2.0,) * 9), "too short: 9 points, at least 10"),
        (Curve(LRS[:0], ()), "too short: 0 points"),
        (curve_of(lambda x: 2.3), r"flat: the loss falls by 0\.0% only"),
        (curve_of(lambda x: 2.3 - 0.05 * (x > -2)), r"flat: the loss falls by 2\.\d% only"),
        (curve_of(lambda x: 1 + math.exp(x)), "rising: the loss is lowest where the rate is"),
        (curve_of(lambda x: 0.2 + 0.1 * (x + 7)), "rising"),
        (curve_of(lambda x: 0.05, noise=0.04), "too noisy: a fall of .* is lost in the noise|flat|rising"),
        (Curve(LRS, (2.0,) * 50 + (math.nan,) + (2.0,) * 49), "not finite"),
        (Curve(LRS, (2.0,) * 99 + (math.inf,)), "not finite"),
        (Curve(LRS, (0.0,) * 100), "not positive: a loss of zero"),
    ],
)
def test_a_curve_that_shows_nothing_is_refused_with_a_reason(curve, reason):
    suggestions = suggest(curve)
    assert [suggestion.heuristic for suggestion in suggestions] == list(ORDER)
    for suggestion in suggestions:
        assert suggestion.lr is None
        assert re.match(reason, suggestion.reason), suggestion.reason


def test_pure_noise_is_hardly_ever_taken_for_a_fall():
    answered = [judge(curve_of(lambda x: 2.3, noise=0.2, seed=seed)) is None for seed in range(400)]
    assert sum(answered) / 400 < 0.03


def test_a_real_fall_under_noise_is_hardly_ever_refused():
    refused = [judge(curve_of(typical, noise=0.3, seed=seed)) is not None for seed in range(400)]
    assert sum(refused) / 400 < 0.03


def test_a_loss_that_still_falls_at_the_end_has_no_minimum_but_a_steepest_point():
    curve = curve_of(lambda x: 2.3 - 1.8 / (1 + math.exp(-4 * x)))
    by_name = {suggestion.heuristic: suggestion for suggestion in suggest(curve)}
    assert by_name["minimum"].lr is None
    assert "raise lr_finder.end" in by_name["minimum"].reason
    assert log10_of(by_name["steepest"]) == pytest.approx(0, abs=0.2)


def test_divergence_is_where_the_loss_comes_to_stay_a_fifth_above_its_first_level():
    curve = curve_of(typical, smoothing=0)
    expected = -1 + math.log(1.8 + 0.2 * 2.3) / 6  # what the explosion adds to the floor, 1.8 below the level
    assert math.log10(divergence(curve)) == pytest.approx(expected, abs=0.09)
    assert divergence(curve_of(lambda x: 2.3 - 0.1 * x)) is None


def test_where_a_noisy_test_ended_early_its_last_rate_is_too_high():
    """The loss of the last batch ended it, though that of few images is too noisy to see a divergence in."""
    noisy = curve_of(lambda x: 1.0, noise=0.2)
    assert divergence(noisy) is None
    assert ceiling(noisy, 10 * LRS[-1]) == LRS[-1]
    assert ceiling(noisy, LRS[-1]) is None
    assert ceiling(curve_of(typical), LRS[-1]) == divergence(curve_of(typical)) != LRS[-1]


def test_noise_that_crosses_the_first_level_early_is_no_divergence():
    """The curve of a trained model: flat, noisy, then an explosion."""
    curves = [curve_of(lambda x: 1 + math.exp(6 * (x + 2)), noise=0.25, seed=seed) for seed in range(100)]
    right = [-3 < math.log10(divergence(curve)) < -1.5 for curve in curves]
    assert sum(right) >= 95


def test_an_explosion_does_not_hide_the_valley_before_it():
    clean = curve_of(typical)
    huge = replace(clean, losses=(*clean.losses[:-3], 1e4, 1e6, 1e9))
    for before, after in zip(suggest(clean), suggest(huge), strict=True):
        assert decades([before.lr, after.lr]) < 0.2, before.heuristic


def rates(**lrs):
    return [Suggestion(name, lrs.get(name), "" if name in lrs else "flat") for name in ORDER]


def test_the_wanted_heuristic_is_taken_and_else_the_next_in_order():
    assert choose(rates(valley=1e-3, knee=1e-2), "valley").heuristic == "valley"
    assert choose(rates(slide=1e-3, steepest=1e-2), "valley").heuristic == "steepest"
    assert choose(rates(), "valley") is None


def test_decades_between_rates():
    assert decades([1e-3, 1e-5, 2e-4]) == pytest.approx(2)
    assert decades([1e-3]) == 0
    assert decades([]) == 0


def test_smoothing_keeps_a_straight_line_away_from_its_ends_and_a_constant_everywhere():
    line = np.arange(50.0)
    np.testing.assert_allclose(gaussian_smooth(line, 3)[12:-12], line[12:-12], atol=1e-3)
    np.testing.assert_allclose(gaussian_smooth(np.full(50, 2.3), 3), 2.3)
    assert gaussian_smooth(line, 0) is line


def test_smoothing_does_not_lag():
    """A moving average over the past would shift the step; a centred kernel leaves it where it is."""
    step = np.where(np.arange(101) < 50, 1.0, 0.0)
    smoothed = gaussian_smooth(step, 4)
    assert int(np.argmin(np.abs(smoothed - 0.5))) in (49, 50)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12))
def test_the_longest_descent_is_the_longest_of_all_subsequences(values):
    def longest(i, above):
        if i == len(values):
            return 0
        take = 1 + longest(i + 1, values[i]) if values[i] < above else 0
        return max(take, longest(i + 1, above))

    assert longest_descent(values)[1] == longest(0, math.inf)


def test_the_fewest_points_are_enough():
    falling = tuple(2.0 - 0.1 * i for i in range(MIN_POINTS))
    assert judge(Curve(LRS[:MIN_POINTS], falling)) is None
    assert "too short" in judge(Curve(LRS[: MIN_POINTS - 1], falling[1:]))


@pytest.mark.parametrize(("floor", "learns"), [(1.2, False), (1.1, False), (1.0, True)])
def test_a_curve_that_falls_no_lower_than_guessing_shows_no_learning(floor, learns):
    losses = (2.0,) * 30 + (floor,) * 50  # the loss of a new head, and then of one answer for all images
    curve = Curve(LRS[:80], losses, 0)
    assert suggest(curve)[0].lr is not None
    reason = judge_against_chance(curve, 1.0986)
    assert (reason is None) == learns
    if reason is not None:
        assert reason == (
            f"no better than random guessing: the loss falls to {floor:.4f}, and guessing gives 1.0986"
        )
