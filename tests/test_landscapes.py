"""The functions that optimizers are raced on, and their ways down, replayed with torch's own gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.commands.optimizers.landscapes import RATES, RAVINE, SADDLE, STAY, best_descent
from finetune.optim.build import build_optimizer
from finetune.optim.update_rules import UPDATE_RULES

LANDSCAPES = pytest.mark.parametrize("landscape", [SADDLE, RAVINE], ids=lambda landscape: landscape.name)
STEPS = 100


@pytest.fixture(scope="module")
def off_the_saddle():
    return {name: best_descent(SADDLE, name, steps=STEPS) for name in UPDATE_RULES}


def replay(landscape, descent, *, more):
    """Return the points of a descent and of some steps more, by automatic differentiation."""
    weights = torch.tensor([landscape.start], dtype=torch.float64, requires_grad=True)
    group = {"params": [weights], "lr": descent.lr, "weight_decay": 0.0}
    optimizer = build_optimizer([group], name=descent.optimizer, decay="decoupled")
    points = [landscape.start]
    for _ in range(len(descent.points) - 1 + more):
        optimizer.zero_grad()
        landscape.value(*weights[0]).backward()
        optimizer.step()
        points.append(tuple(weights[0].tolist()))
    return points


def curvatures(landscape, x, y, h=1e-4):
    """Return the eigenvalues of the Hessian, by differences of the gradient."""
    columns = [
        (np.array(landscape.gradient(x + dx, y + dy)) - landscape.gradient(x - dx, y - dy)) / (2 * h)
        for dx, dy in ((h, 0), (0, h))
    ]
    return np.linalg.eigvalsh(np.array(columns))


@LANDSCAPES
def test_gradients_are_the_slopes_of_the_values(landscape):
    h = 1e-5
    for x, y in np.random.default_rng(0).uniform(-1.5, 1.5, (50, 2)).tolist():
        slopes = (
            (landscape.value(x + h, y) - landscape.value(x - h, y)) / (2 * h),
            (landscape.value(x, y + h) - landscape.value(x, y - h)) / (2 * h),
        )
        assert landscape.gradient(x, y) == pytest.approx(slopes, rel=1e-6, abs=1e-8)


@LANDSCAPES
def test_floors_are_lowest_and_below_the_line(landscape):
    for floor in landscape.floors:
        assert landscape.gradient(*floor) == pytest.approx((0, 0), abs=1e-12)
        assert curvatures(landscape, *floor).min() > 0
        assert landscape.value(*floor) < landscape.line < landscape.value(*landscape.start)


def test_the_saddle_is_one_and_twenty_times_less_curved_the_way_out():
    assert SADDLE.gradient(0, 0) == (0, 0)
    assert curvatures(SADDLE, 0, 0) == pytest.approx([-1 / 20, 1], rel=1e-6)
    out = np.array(SADDLE.floors[0])
    assert np.linalg.norm(out) == pytest.approx(1)
    assert np.dot(out, SADDLE.start) == pytest.approx(1e-3)
    # At the start, the slope of the way out is less than a ten-thousandth of the whole.
    slope = np.array(SADDLE.gradient(*SADDLE.start))
    assert 0 < abs(slope @ out) < 1e-4 * np.linalg.norm(slope)


def test_plain_sgd_is_the_last_to_leave_the_saddle(off_the_saddle):
    steps = {name: descent.steps for name, descent in off_the_saddle.items()}
    assert None not in steps.values()
    assert all(other < 0.95 * steps["sgd"] for name, other in steps.items() if name != "sgd")
    assert steps["momentum"] < 0.6 * steps["sgd"]
    assert steps["nesterov"] < 0.6 * steps["sgd"]


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_the_way_is_that_of_the_optimizer_and_ends_where_it_stays_below_the_line(name, off_the_saddle):
    descent = off_the_saddle[name]
    points = replay(SADDLE, descent, more=STAY)
    assert len(descent.points) == descent.steps + 1
    assert np.array(descent.points) == pytest.approx(
        np.array(points[: descent.steps + 1]), rel=1e-6, abs=1e-9
    )
    values = [SADDLE.value(*point) for point in points]
    assert values[descent.steps - 1] > SADDLE.line
    assert max(values[descent.steps :]) <= SADDLE.line
    assert max(values) == values[0]


@pytest.mark.parametrize("name", ["momentum", "adam", "ranger"])
def test_no_other_rate_is_faster(name, off_the_saddle):
    best = off_the_saddle[name]
    for lr in RATES:
        steps = best_descent(SADDLE, name, steps=STEPS, rates=(lr,)).steps
        assert steps is None or steps >= best.steps
        assert (lr == best.lr) <= (steps == best.steps)


def test_the_best_rates_are_not_at_an_end_of_those_there_are(off_the_saddle):
    assert all(RATES[0] < descent.lr < RATES[-1] for descent in off_the_saddle.values())


def test_more_steps_change_nothing_for_who_needs_fewer(off_the_saddle):
    for name in ("sgd", "lion"):
        assert best_descent(SADDLE, name, steps=3 * STEPS) == off_the_saddle[name]
        needed = off_the_saddle[name].steps
        assert best_descent(SADDLE, name, steps=needed) == off_the_saddle[name]
        assert best_descent(SADDLE, name, steps=needed - 1).steps is None


def test_who_does_not_get_there_is_shown_where_it_ends_lowest():
    descent = best_descent(RAVINE, "sgd", steps=30)
    assert descent.steps is None
    assert len(descent.points) == 31
    ends = [best_descent(RAVINE, "sgd", steps=30, rates=(lr,)).points for lr in RATES]
    assert RAVINE.value(*descent.points[-1]) == min(RAVINE.value(*p[-1]) for p in ends if len(p) == 31)


def test_a_rate_that_climbs_above_the_start_is_out():
    # The step is to 3 with f = 9, the next to -9: up and up.
    bowl = replace(
        SADDLE, start=(-1.0, 0.0), line=0.1, value=lambda x, y: x * x, gradient=lambda x, y: (2 * x, 0.0)
    )
    descent = best_descent(bowl, "sgd", steps=10, rates=(2.0,))
    assert descent.steps is None
    assert descent.points == [(-1.0, 0.0), (3.0, 0.0)]
    # (1 − 2a)ⁿ falls below the root of 0.1: at once with a = 0.5, after 2 steps with 0.25.
    assert best_descent(bowl, "sgd", steps=10, rates=(0.25, 2.0)).steps == 2
    assert best_descent(bowl, "sgd", steps=10, rates=(0.25, 0.5, 2.0)).lr == 0.5


def test_who_only_passes_the_line_has_not_arrived():
    # A momentum of 0.9 swings through the bottom of a bowl again and again.
    bowl = replace(
        SADDLE, start=(-1.0, 0.0), line=0.01, value=lambda x, y: x * x, gradient=lambda x, y: (2 * x, 0.0)
    )
    descent = best_descent(bowl, "momentum", steps=200, rates=(1.0,))
    values = [bowl.value(*point) for point in descent.points]
    assert min(values[: descent.steps]) <= bowl.line
    assert math.isclose(values[0], 1)
    assert descent.steps > 5


def test_descents_repeat_bit_for_bit():
    for name in UPDATE_RULES:
        assert best_descent(RAVINE, name, steps=20) == best_descent(RAVINE, name, steps=20)


def test_without_decay_adamw_is_adam(off_the_saddle):
    assert off_the_saddle["adamw"].points == off_the_saddle["adam"].points
