"""The sweep: its rates, when it stops, what it measures, and that nothing of it remains."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from test_race import make_trial
from torch import nn

from finetune.lr_finder import trial as trial_module
from finetune.lr_finder.heuristics import Curve
from finetune.lr_finder.sweep import Range, mean_curve, range_test
from finetune.lr_finder.trial import no_trace


def test_rates_rise_by_equal_ratios_from_start_to_end():
    rates = Range(start=1e-6, end=1e-2, steps=41).rates()
    assert (rates[0], rates[-1], len(rates)) == (1e-6, pytest.approx(1e-2), 41)
    assert all(b / a == pytest.approx(10**0.1) for a, b in pairwise(rates))


def test_a_point_is_the_loss_after_a_step_at_its_rate():
    trial = make_trial()
    curve = range_test(trial, Range(start=1e-3, end=1e-1, steps=20), momentum=None)[0]
    losses = list(trial.steps([(lr, None) for lr in [*curve.lrs, 1e-1]]))
    assert list(curve.losses) == losses[1:]


def test_the_sweep_starts_anew_for_each_repeat_over_other_batches():
    trial = make_trial()
    weights = [p.clone() for p in trial.module.parameters()]
    curves = range_test(trial, Range(start=1e-6, end=1e-5, steps=20), repeats=3, momentum=None)
    assert len({curve.losses for curve in curves}) == 3
    assert all(torch.equal(a, b) for a, b in zip(weights, trial.module.parameters(), strict=True))
    again = range_test(trial, Range(start=1e-6, end=1e-5, steps=20), repeats=2, momentum=None)
    assert [c.losses for c in again] == [c.losses for c in curves[:2]]


def test_the_sweep_stops_when_the_loss_is_far_above_its_first_level_and_not_before():
    curve = range_test(make_trial(), Range(start=1e-3, end=1e9, steps=200), momentum=None)[0]
    assert 15 < len(curve.lrs) < 200
    assert all(map(math.isfinite, curve.losses))
    calm = range_test(make_trial(), Range(start=1e-6, end=1e-5, steps=30), momentum=None)[0]
    assert len(calm.lrs) == 30


class Scripted(nn.Module):
    """A loss with a given course."""

    def __init__(self, losses):
        super().__init__()
        self.losses = iter(losses)

    def forward(self, logits, targets):
        return 0 * logits.sum() + next(self.losses)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_stop_rule_goes_by_the_first_level_whatever_its_scale(scale):
    losses = [scale * x for x in [2.0] * 20 + [0.1] * 20 + [5.0] * 20 + [7.0] * 40]
    trial = make_trial(loss=Scripted(losses))
    curve = range_test(trial, Range(steps=99, stop=3.0), momentum=None)[0]
    # 5 is fifty times the best loss, yet no reason to stop; of 7s three in five are.
    assert len(curve.lrs) == 62


def test_one_hard_batch_ends_no_sweep():
    losses = [2.0] * 30 + [50.0] + [2.0] * 70
    curve = range_test(make_trial(loss=Scripted(losses)), Range(steps=90), momentum=None)[0]
    assert len(curve.lrs) == 90


def test_a_loss_that_is_not_finite_ends_the_sweep_and_is_left_out():
    losses = [2.0] * 30 + [math.nan] + [2.0] * 70
    curve = range_test(make_trial(loss=Scripted(losses)), Range(steps=90), momentum=None)[0]
    assert len(curve.lrs) == 29
    assert set(curve.losses) == {2.0}


def test_the_momentum_of_the_sweep_is_set_in_every_group():
    trial = make_trial()
    model, seen = trial.module, []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            seen.append([group["betas"][0] for group in self.param_groups])
            return super().step(closure)

    trial = replace(trial, new_optimizer=lambda: Watched(model.parameters(), lr=1.0))
    range_test(trial, Range(start=1e-5, end=1e-3, steps=20), momentum=0.85)
    assert seen == [[0.85]] * 21


def test_the_mean_curve_is_as_long_as_the_shortest():
    curves = [Curve((1.0, 2.0, 3.0), (1.0, 2.0, 3.0)), Curve((1.0, 2.0), (3.0, 4.0))]
    assert mean_curve(curves) == Curve((1.0, 2.0), (2.0, 3.0))


def test_no_trace_puts_back_gradients_and_random_states():
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    gradient, value = model.weight.grad, model.weight.grad.clone()
    state = torch.get_rng_state()
    with no_trace(model):
        assert model.weight.grad is None
        model(torch.ones(1, 2)).sum().backward()
        torch.rand(3)
    assert model.weight.grad is gradient
    assert torch.equal(model.weight.grad, value)
    assert torch.equal(torch.get_rng_state(), state)


def test_losses_that_are_read_late_are_the_same_and_end_the_sweep_at_the_same_rate(monkeypatch):
    """As on a GPU: who stops has had a few steps for nothing, and no trace of them stays."""
    how = Range(start=1e-2, end=1e5, steps=60)
    trial = make_trial()
    before = [parameter.detach().clone() for parameter in trial.module.parameters()]
    at_once = range_test(trial, how, momentum=None)
    monkeypatch.setitem(trial_module._STEPS_AHEAD, "cpu", 2)
    assert range_test(trial, how, momentum=None) == at_once
    assert len(at_once[0].lrs) < how.steps
    assert all(map(torch.equal, trial.module.parameters(), before))
