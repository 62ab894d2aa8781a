import numpy as np
import pytest
import torch
from torch import nn

from finetune.optim import build_optimizer, has_momentum


def gradients(steps, shapes):
    random = np.random.default_rng(0)
    return [[random.normal(size=shape) for shape in shapes] for _ in range(steps)]


def reference(name, decay, weights, all_gradients, lrs, wd):
    """Follow the update rules in NumPy, in float64."""
    m, s = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for i, (step_gradients, a) in enumerate(zip(all_gradients, lrs, strict=True), start=1):
        for k, g in enumerate(step_gradients):
            w = weights[k]
            if decay == "l2":
                g = g + wd * w
            else:
                w = w * (1 - a * wd)
            if name == "sgd":
                weights[k] = w - a * g
                continue
            m[k] = 0.9 * m[k] + 0.1 * g
            s[k] = 0.999 * s[k] + 0.001 * g * g
            weights[k] = w - a * (m[k] / (1 - 0.9**i)) / (np.sqrt(s[k] / (1 - 0.999**i)) + 1e-8)
    return weights


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_sixty_steps_follow_the_formula(name, decay):
    shapes, steps, wd = [(5, 3), (7,), (2, 3, 3, 3)], 60, 0.1
    all_gradients = gradients(steps, shapes)
    lrs = [1e-3 * (1 + step % 7) for step in range(steps)]
    start = [np.random.default_rng(1).normal(size=shape) for shape in shapes]
    parameters = [nn.Parameter(torch.tensor(w)) for w in start]
    optimizer = build_optimizer(
        [{"params": parameters, "lr": 1e-3, "weight_decay": wd}], name=name, decay=decay
    )
    for step_gradients, lr in zip(all_gradients, lrs, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        for parameter, gradient in zip(parameters, step_gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    expected = reference(name, decay, start, all_gradients, lrs, wd)
    for parameter, weights in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), weights, rtol=1e-6)


def test_both_decays_agree_for_sgd_and_differ_for_adam():
    shapes = [(4, 4)]
    start = np.random.default_rng(1).normal(size=(4, 4))
    results = {
        (name, decay): reference(name, decay, [start.copy()], gradients(50, shapes), [1e-2] * 50, 0.1)[0]
        for name in ("adam", "sgd")
        for decay in ("decoupled", "l2")
    }
    np.testing.assert_allclose(results["sgd", "decoupled"], results["sgd", "l2"], rtol=1e-12)
    assert np.abs(results["adam", "decoupled"] - results["adam", "l2"]).max() > 1e-3


def test_the_optimizer_is_fused():
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": 1e-3, "weight_decay": 0.0}]
    for name in ("adam", "sgd"):
        assert build_optimizer(groups, name=name, decay="decoupled").param_groups[0]["fused"] is True


def test_only_an_optimizer_with_momentum_has_one():
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": 1e-3, "weight_decay": 0.0}]
    assert has_momentum(build_optimizer(groups, name="adam", decay="l2"))
    assert not has_momentum(build_optimizer(groups, name="sgd", decay="l2"))
