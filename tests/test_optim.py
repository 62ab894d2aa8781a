"""Every optimizer, step by step, against NumPy code written from the formulas."""

from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from finetune.choices import Decay, OptimizerName
from finetune.optim.build import build_optimizer, has_momentum
from finetune.optim.multi_tensor import MultiTensorOptimizer
from finetune.optim.update_rules import UPDATE_RULES, Settings

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


def classic_momentum(w, g, a, b, i, past):
    past["m"] = b * past["m"] + g
    return w - a * past["m"]


def classic_nesterov(w, g, a, b, i, past):
    past["m"] = b * past["m"] + g
    return w - a * (g + b * past["m"])


def adagrad(w, g, a, b, i, past, eps=1e-8):
    past["s"] = past["s"] + g**2
    return w - a * g / np.sqrt(past["s"] + eps)


def rmsprop(w, g, a, b, i, past, b2=0.99, eps=1e-8):
    past["s"] = b2 * past["s"] + (1 - b2) * g**2
    return w - a * g / np.sqrt(past["s"] + eps)


def adadelta(w, g, a, b, i, past, b2=0.9, eps=1e-6):
    past["s"] = b2 * past["s"] + (1 - b2) * g**2
    d = -g * np.sqrt(past["u"] + eps) / np.sqrt(past["s"] + eps)
    past["u"] = b2 * past["u"] + (1 - b2) * d**2
    return w + a * d


def moments(g, b1, b2, i, past):
    past["m"] = b1 * past["m"] + (1 - b1) * g
    past["s"] = b2 * past["s"] + (1 - b2) * g**2
    return past["m"] / (1 - b1**i), past["s"] / (1 - b2**i)


def adam(w, g, a, b, i, past, b2=0.999, eps=1e-8):
    m, s = moments(g, b, b2, i, past)
    return w - a * m / (np.sqrt(s) + eps)


def nadam(w, g, a, b, i, past, b2=0.999, eps=1e-8):
    now, later = (b * (1 - 0.5 * 0.96 ** (0.004 * k)) for k in (i, i + 1))
    past["product"] = now * (past["product"] if i > 1 else 1)
    _, s = moments(g, b, b2, i, past)
    m = later * past["m"] / (1 - past["product"] * later) + (1 - now) * g / (1 - past["product"])
    return w - a * m / (np.sqrt(s) + eps)


def radam(w, g, a, b, i, past, b2=0.999, eps=1e-8):
    m, _ = moments(g, b, b2, i, past)
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * i * b2**i / (1 - b2**i)
    if length <= 5:
        return w - a * m
    rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return w - a * np.sqrt(rectified) * m * np.sqrt(1 - b2**i) / (np.sqrt(past["s"]) + eps)


def ranger(w, g, a, b, i, past):
    slow = past.setdefault("slow", past["start"])
    w = radam(w, g, a, b, i, past, eps=1e-5)
    if i % 6:
        return w
    past["slow"] = slow + 0.5 * (w - slow)
    return past["slow"]


def lamb(w, g, a, b, i, past, b2=0.999, eps=1e-6):
    m, s = moments(g, b, b2, i, past)
    r = m / (np.sqrt(s) + eps)
    size, length = np.linalg.norm(w), np.linalg.norm(r)
    trust = min(size / length, 10) if np.ndim(w) > 1 and size and length else 1
    return w - a * trust * r


def lion(w, g, a, b, i, past, b2=0.99):
    w = w - a * np.sign(b * past["m"] + (1 - b) * g)
    past["m"] = b2 * past["m"] + (1 - b2) * g
    return w


CLASSIC = {"settings": Settings(form="classic")}
FORMULAS = {
    **{f.__name__: f for f in (sgd, momentum, nesterov, adagrad, rmsprop, adadelta, adam, nadam, radam)},
    **{f.__name__: f for f in (ranger, lamb, lion)},
    "adamw": adam,
}
CASES = [(name, formula, {}) for name, formula in FORMULAS.items()] + [
    ("momentum", classic_momentum, CLASSIC),
    ("nesterov", classic_nesterov, CLASSIC),
    ("rmsprop", partial(rmsprop, b2=0.9, eps=1e-3), {"settings": Settings(beta2=0.9, eps=1e-3)}),
    ("adagrad", partial(adagrad, eps=1e-2), {"settings": Settings(eps=1e-2)}),
    ("adadelta", partial(adadelta, b2=0.5, eps=1e-3), {"settings": Settings(beta2=0.5, eps=1e-3)}),
    ("adam", partial(adam, b2=0.9, eps=1e-2), {"settings": Settings(beta2=0.9, eps=1e-2)}),
    ("nadam", partial(nadam, b2=0.9, eps=1e-2), {"settings": Settings(beta2=0.9, eps=1e-2)}),
    ("radam", partial(radam, b2=0.9, eps=1e-2), {"settings": Settings(beta2=0.9, eps=1e-2)}),
    ("lamb", partial(lamb, b2=0.9, eps=1e-2), {"settings": Settings(beta2=0.9, eps=1e-2)}),
    ("lion", partial(lion, b2=0.9), {"settings": Settings(beta2=0.9)}),
]


class Zeros(dict):
    def __missing__(self, key):
        return 0.0


def follow(formula, decay, weights, all_gradients, *, rates=RATES, momenta=MOMENTA, wd=WEIGHT_DECAY):
    """Follow a formula over all steps and tensors."""
    weights, pasts = list(weights), [Zeros(start=w) for w in weights]
    for i, (gradients, a, b) in enumerate(zip(all_gradients, rates, momenta, strict=True), start=1):
        for k, g in enumerate(gradients):
            w = weights[k]
            if decay == "l2":
                g = g + wd * w
            else:
                w = (1 - a * wd) * w
            weights[k] = formula(w, g, a, b, i, pasts[k])
    return weights


def draw(*, steps=STEPS, dtype=np.float64):
    """Draw first weights, and the gradients of all steps."""
    random = np.random.default_rng(0)
    draws = [[np.asarray(random.normal(size=shape), dtype) for shape in SHAPES] for _ in range(steps + 1)]
    return draws[0], draws[1:]


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


def assert_same(ours, expected, rtol=1e-6):
    for weights, reference in zip(ours, expected, strict=True):
        np.testing.assert_allclose(weights, reference, rtol=rtol)


def test_every_optimizer_has_a_formula():
    assert FORMULAS.keys() == UPDATE_RULES.keys() == set(NAMES)


@pytest.mark.parametrize(
    ("name", "formula", "settings", "decay"),
    [(*case, decay) for case in CASES for decay in UPDATE_RULES[case[0]].decays],
)
def test_sixty_steps_follow_the_formula(name, formula, settings, decay):
    start, all_gradients = draw()
    ours = take_steps(*build(start, name, decay, **settings), all_gradients)
    assert_same(ours, follow(formula, decay, start, all_gradients))


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_a_momentum_may_be_zero_for_a_while(name):
    start, all_gradients = draw()
    momenta = [0.0 if step % 20 < 3 else 0.9 for step in range(STEPS)]
    ours = take_steps(*build(start, name, "l2"), all_gradients, momenta=momenta)
    assert_same(ours, follow(FORMULAS[name], "l2", start, all_gradients, momenta=momenta))


@pytest.mark.parametrize(("name", "share"), [("adagrad", 1), ("rmsprop", 0.01)])
def test_epsilon_stands_below_the_root(name, share):
    """A tiny gradient makes a tiny step; torch's √s + ε would make it a step of about the full rate."""
    ours = take_steps(*build([np.zeros(3)], name, "l2"), [[np.full(3, 1e-7)]], rates=[1.0], momenta=[0.9])
    np.testing.assert_allclose(ours[0], -1e-7 / np.sqrt(share * 1e-14 + 1e-8), rtol=1e-6)
    assert np.abs(ours[0]).max() < 1e-2


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


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_the_mean_equals_torchs_form_with_another_rate_as_long_as_nothing_moves(name):
    start, all_gradients = draw()
    still = {"momenta": [0.9] * STEPS}
    mean = take_steps(*build(start, name, "l2"), all_gradients, rates=[1e-2] * STEPS, **still)
    classic = take_steps(*build(start, name, "l2", **CLASSIC), all_gradients, rates=[1e-3] * STEPS, **still)
    assert_same(mean, classic, rtol=1e-12)
    moving = [
        take_steps(*build(start, name, "l2", **form), all_gradients, rates=[rate] * STEPS)[0]
        for form, rate in (({}, 1e-2), (CLASSIC, 1e-3))
    ]
    assert np.abs(moving[0] - moving[1]).max() > 1e-3


@pytest.mark.parametrize("b", [0.5, 0.9, 0.99])
def test_the_mean_is_over_about_as_many_gradients_as_one_over_one_minus_b(b):
    parameters, optimizer = build([np.zeros(())], "momentum", "decoupled")
    optimizer.param_groups[0]["weight_decay"] = 0.0
    n = round(1 / (1 - b))
    steps = []
    for gradients in [[np.array(1.0)], *([np.array(0.0)] for _ in range(20 * n))]:
        before = parameters[0].item()
        take_steps(parameters, optimizer, [gradients], rates=[1.0], momenta=[b])
        steps.append(before - parameters[0].item())
    # A gradient is felt in full over time, 1 − bⁿ ≈ 1 − 1/e of it within n steps; its mean age is n − 1.
    assert sum(steps) == pytest.approx(1, rel=1e-6)
    assert sum(steps[:n]) == pytest.approx(1 - b**n)
    assert 1 - b**n == pytest.approx(1 - np.exp(-1), rel=0.2)
    assert sum(age * step for age, step in enumerate(steps)) == pytest.approx(n - 1, rel=1e-3)


def test_both_decays_agree_for_sgd_and_differ_for_adam():
    start, all_gradients = draw()
    results = {
        (name, decay): take_steps(*build(start, name, decay), all_gradients)[0]
        for name in ("adam", "sgd")
        for decay in DECAYS
    }
    np.testing.assert_allclose(results["sgd", "decoupled"], results["sgd", "l2"], rtol=1e-12)
    assert np.abs(results["adam", "decoupled"] - results["adam", "l2"]).max() > 1e-3


def test_adamw_is_adam_with_decoupled_decay():
    start, all_gradients = draw()
    adamw, adam, l2 = (
        take_steps(*build(start, name, decay), all_gradients)
        for name, decay in (("adamw", "decoupled"), ("adam", "decoupled"), ("adamw", "l2"))
    )
    for ours, reference, forced in zip(adamw, adam, l2, strict=True):
        np.testing.assert_array_equal(ours, reference)
        np.testing.assert_array_equal(forced, reference)


def test_lamb_moves_what_is_zero():
    (parameter,), optimizer = build([np.zeros((2, 3))], "lamb", "decoupled")
    take_steps([parameter], optimizer, [[np.ones((2, 3))]], rates=[0.1], momenta=[0.9])
    np.testing.assert_allclose(parameter.detach().numpy(), -0.1, rtol=1e-5)
    take_steps([parameter], optimizer, [[np.zeros((2, 3))]], rates=[0.1], momenta=[0.0])
    assert np.isfinite(parameter.detach().numpy()).all()


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize(("name", "settings"), [(name, {}) for name in NAMES] + [("nesterov", CLASSIC)])
def test_saving_and_loading_the_state_changes_nothing(name, settings, decay):
    start, all_gradients = draw(steps=20, dtype=np.float32)
    parameters, optimizer = build(start, name, decay, **settings)
    without = take_steps(parameters, optimizer, all_gradients, rates=RATES[:20], momenta=MOMENTA[:20])

    parameters, optimizer = build(start, name, decay, **settings)
    half_way = take_steps(parameters, optimizer, all_gradients[:10], rates=RATES[:10], momenta=MOMENTA[:10])
    parameters, again = build(half_way, name, decay, **settings)
    again.load_state_dict(optimizer.state_dict())
    assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    with_it = take_steps(parameters, again, all_gradients[10:], rates=RATES[10:20], momenta=MOMENTA[10:20])
    for a, b in zip(without, with_it, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_leaves_gradients_alone_and_passes_over_parameters_without_one(name):
    for decay in UPDATE_RULES[name].decays:
        start, ((first, *_), *_) = draw()
        (learning, waiting), optimizer = build([start[0], start[1]], name, decay)
        learning.grad = torch.tensor(first)
        optimizer.step()
        assert not np.array_equal(learning.detach().numpy(), start[0])
        np.testing.assert_array_equal(learning.grad.numpy(), first)
        np.testing.assert_array_equal(waiting.detach().numpy(), start[1])
        assert optimizer.param_groups[0]["weight_decay"] == WEIGHT_DECAY


@pytest.mark.parametrize("name", NAMES)
def test_a_step_can_evaluate_the_loss_anew(name):
    for decay in UPDATE_RULES[name].decays:
        (parameter,), optimizer = build([np.ones(3)], name, decay)

        def evaluate(parameter=parameter):
            parameter.grad = None
            loss = (parameter**2).sum()
            loss.backward()
            return loss

        assert optimizer.step(evaluate) == 3.0
        assert (parameter < 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_updates_many_tensors_at_once(name):
    _, optimizer = build([np.ones(2)], name, "decoupled")
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, MultiTensorOptimizer) or group.get("fused") or group["foreach"]


def test_only_an_optimizer_with_momentum_has_one():
    with_it = {name for name in NAMES if has_momentum(build([np.ones(2)], name, "l2")[1])}
    assert with_it == set(NAMES) - {"sgd", "adagrad", "rmsprop", "adadelta"}
    assert with_it == {name for name in NAMES if UPDATE_RULES[name].settings.momentum}
