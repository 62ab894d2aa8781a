"""Every optimizer, step by step, against NumPy code written from the formulas."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from finetune.config.values import Decay as ConfigDecay
from finetune.config.values import OptimizerName as ConfigOptimizerName
from finetune.optim import Decay, OptimizerName, build_optimizer, has_momentum

NAMES, DECAYS = get_args(OptimizerName), get_args(Decay)
SHAPES = [(5, 3), (7,), (2, 3, 3, 3), ()]
STEPS = 60
RATES = [1e-3 * (1 + step % 7) for step in range(STEPS)]
MOMENTA = [0.95 - 0.01 * (step % 11) for step in range(STEPS)]
WEIGHT_DECAY = 0.1


# One step of each optimizer, in float64: `g` is the gradient, `a` the rate, `b` the momentum, `i` counts the
# steps from 1, and `past` holds what was kept of them, all of it 0 at the start.


def sgd(w, g, a, b, i, past):
    return w - a * g


def momentum(w, g, a, b, i, past):
    past["m"] = b * past["m"] + (1 - b) * g
    return w - a * past["m"]


def nesterov(w, g, a, b, i, past):
    past["m"] = b * past["m"] + (1 - b) * g + b * (1 - b) * (g - past["g"])
    past["g"] = g
    return w - a * past["m"]


def adam(w, g, a, b, i, past):
    past["m"] = b * past["m"] + (1 - b) * g
    past["s"] = 0.999 * past["s"] + 0.001 * g**2
    return w - a * (past["m"] / (1 - b**i)) / (np.sqrt(past["s"] / (1 - 0.999**i)) + 1e-8)


FORMULAS = {formula.__name__: formula for formula in (sgd, momentum, nesterov, adam)}


class Zeros(dict):
    def __missing__(self, key):
        return 0.0


def follow(formula, decay, weights, all_gradients, *, rates=RATES, momenta=MOMENTA, wd=WEIGHT_DECAY):
    """Follow a formula over all steps and tensors."""
    weights, pasts = list(weights), [Zeros() for _ in weights]
    for i, (gradients, a, b) in enumerate(zip(all_gradients, rates, momenta, strict=True), start=1):
        for k, g in enumerate(gradients):
            w = weights[k]
            if decay == "l2":
                g = g + wd * w
            else:
                w = (1 - a * wd) * w
            weights[k] = formula(w, g, a, b, i, pasts[k])
    return weights


def draw(shapes=SHAPES, steps=STEPS):
    """Draw first weights, and the gradients of all steps."""
    random = np.random.default_rng(0)
    start = [random.normal(size=shape) for shape in shapes]
    return start, [[random.normal(size=shape) for shape in shapes] for _ in range(steps)]


def build(weights, name, decay, **settings):
    parameters = [nn.Parameter(torch.tensor(w)) for w in weights]
    groups = [{"params": parameters, "lr": 1e-3, "weight_decay": WEIGHT_DECAY}]
    return parameters, build_optimizer(groups, name=name, decay=decay, **settings)


def schedule(optimizer, rate, momentum):
    """Set rate and momentum, as fastai's schedule does."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        elif has_momentum(optimizer):
            group["momentum"] = momentum


def take_steps(parameters, optimizer, all_gradients, *, rates=RATES, momenta=MOMENTA):
    for gradients, rate, b in zip(all_gradients, rates, momenta, strict=True):
        schedule(optimizer, rate, b)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().numpy() for parameter in parameters]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("decay", DECAYS)
def test_sixty_steps_follow_the_formula(name, decay):
    start, all_gradients = draw()
    ours = take_steps(*build(start, name, decay), all_gradients)
    expected = follow(FORMULAS[name], decay, start, all_gradients)
    for weights, reference in zip(ours, expected, strict=True):
        np.testing.assert_allclose(weights, reference, rtol=1e-6)


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_a_momentum_may_be_zero_for_a_while(name):
    start, all_gradients = draw()
    momenta = [0.0 if step % 20 < 3 else 0.9 for step in range(STEPS)]
    ours = take_steps(*build(start, name, "l2"), all_gradients, momenta=momenta)
    expected = follow(FORMULAS[name], "l2", start, all_gradients, momenta=momenta)
    for weights, reference in zip(ours, expected, strict=True):
        np.testing.assert_allclose(weights, reference, rtol=1e-6)


def rosenbrock_gradient(w):
    x, y = w
    return np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


def look_ahead(steps, a, b):
    """Take Nesterov's steps with the gradient at the look-ahead point; give that point after each."""
    w, m, points = np.array([-1.2, 1.0]), np.zeros(2), []
    for _ in range(steps):
        m = b * m + (1 - b) * rosenbrock_gradient(w - a * b * m)
        w = w - a * m
        points.append(w - a * b * m)
    return np.array(points)


def test_nesterov_without_look_ahead_equals_the_look_ahead_form():
    a, b = 2e-3, 0.9
    (parameter,), optimizer = build([np.array([-1.2, 1.0])], "nesterov", "decoupled")
    optimizer.param_groups[0].update(lr=a, momentum=b, weight_decay=0.0)
    points = []
    for _ in range(200):
        parameter.grad = torch.tensor(rosenbrock_gradient(parameter.detach().numpy()))
        optimizer.step()
        points.append(parameter.detach().numpy().copy())
    np.testing.assert_allclose(points, look_ahead(200, a, b), rtol=1e-6)


def test_nesterov_without_its_factor_is_another_method():
    a, b = 2e-3, 0.9
    w, m, before, points = np.array([-1.2, 1.0]), np.zeros(2), np.zeros(2), []
    for _ in range(200):
        g = rosenbrock_gradient(w)
        m, before = b * m + (1 - b) * g + (1 - b) * (g - before), g
        w = w - a * m
        points.append(w)
    assert np.abs(np.array(points) - look_ahead(200, a, b)).max() > 1e-3


def test_both_decays_agree_for_sgd_and_differ_for_adam():
    start, all_gradients = draw()
    results = {
        (name, decay): take_steps(*build(start, name, decay), all_gradients)[0]
        for name in ("adam", "sgd")
        for decay in DECAYS
    }
    np.testing.assert_allclose(results["sgd", "decoupled"], results["sgd", "l2"], rtol=1e-12)
    assert np.abs(results["adam", "decoupled"] - results["adam", "l2"]).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_saving_and_loading_the_state_changes_nothing(name):
    start, all_gradients = draw(steps=20)
    schedules = {"rates": RATES[:20], "momenta": MOMENTA[:20]}
    parameters, optimizer = build(start, name, "l2")
    without = take_steps(parameters, optimizer, all_gradients, **schedules)

    first = {key: values[:10] for key, values in schedules.items()}
    second = {key: values[10:] for key, values in schedules.items()}
    parameters, optimizer = build(start, name, "l2")
    half_way = take_steps(parameters, optimizer, all_gradients[:10], **first)
    parameters, again = build(half_way, name, "l2")
    again.load_state_dict(optimizer.state_dict())
    with_it = take_steps(parameters, again, all_gradients[10:], **second)
    for a, b in zip(without, with_it, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_a_step_leaves_gradients_alone_and_passes_over_parameters_without_one(name):
    start, ((first, *_), *_) = draw()
    (learning, waiting), optimizer = build([start[0], start[1]], name, "decoupled")
    learning.grad = torch.tensor(first)
    optimizer.step()
    np.testing.assert_array_equal(learning.grad.numpy(), first)
    np.testing.assert_array_equal(waiting.detach().numpy(), start[1])
    assert set(optimizer.state) == {learning}


def test_torchs_optimizers_are_fused():
    for name in ("adam", "sgd"):
        _, optimizer = build([np.ones(2)], name, "decoupled")
        assert optimizer.param_groups[0]["fused"] is True


def test_only_an_optimizer_with_momentum_has_one():
    with_it = {name for name in NAMES if has_momentum(build([np.ones(2)], name, "l2")[1])}
    assert with_it == {"momentum", "nesterov", "adam"}


def test_the_config_knows_the_same_words():
    assert set(get_args(ConfigOptimizerName)) == set(NAMES)
    assert get_args(ConfigDecay) == DECAYS
