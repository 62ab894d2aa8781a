"""Losses and weights of images that may have several classes, and the guards around them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_guards import stopped
from test_loop import make_loaders, make_model
from torch.nn import functional

from finetune.task.balance import positive_weights
from finetune.task.losses import ClassificationLoss, MultiLabelLoss


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, generator=generator) * 3
    return logits, (torch.rand(40, 3, generator=generator) < 0.3).float()


def test_the_plain_loss_is_binary_cross_entropy_of_torch_and_its_gradient(outputs):
    logits, targets = (tensor.clone() for tensor in outputs)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = MultiLabelLoss()(ours, targets)
    expected = functional.binary_cross_entropy_with_logits(theirs, targets)
    found.backward()
    expected.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


def test_focal_smoothed_and_weighted_losses_follow_their_formula(outputs):
    logits, targets = (tensor.numpy().astype(float) for tensor in outputs)
    p = 1 / (1 + np.exp(-logits))
    right = np.where(targets == 1, p, 1 - p)
    weights = np.array([0.5, 1.0, 7.0])
    smooth = 0.9 * targets + 0.05
    cases = {
        (2.0, 0.0, None): (1 - right) ** 2 * -np.log(right),
        (0.5, 0.0, None): (1 - right) ** 0.5 * -np.log(right),
        (0.0, 0.1, None): -smooth * np.log(p) - (1 - smooth) * np.log(1 - p),
        (0.0, 0.0, (0.5, 1.0, 7.0)): -weights * targets * np.log(p) - (1 - targets) * np.log(1 - p),
        (1.0, 0.1, (0.5, 1.0, 7.0)): (1 - right)
        * (-weights * smooth * np.log(p) - (1 - smooth) * np.log(1 - p)),
    }
    for (gamma, smoothing, of_classes), expected in cases.items():
        loss = MultiLabelLoss(gamma=gamma, label_smoothing=smoothing, positive_weights=of_classes)
        assert float(loss(*outputs)) == pytest.approx(expected.mean(), rel=1e-5)


@given(
    st.lists(st.lists(st.floats(-200, 200, width=32), min_size=3, max_size=3), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_no_loss_is_ever_negative_or_without_a_finite_gradient(rows, gamma, smoothing, weighted):
    logits = torch.tensor(rows, requires_grad=True)
    weights = [1e-7, 1.0, 900.0] if weighted else None
    loss = MultiLabelLoss(gamma=gamma, label_smoothing=smoothing, positive_weights=weights)
    value = loss(logits, (torch.arange(3 * len(rows)) % 2).reshape(-1, 3).float())
    value.backward()
    assert float(value.detach()) >= 0
    assert torch.isfinite(logits.grad).all()


def test_positives_weigh_by_the_effective_numbers_of_those_with_and_without():
    beta, counts = 0.99, np.array([100, 5, 50])
    expected = (1 - beta ** (100 - counts[1:])) / (1 - beta ** counts[1:])
    assert positive_weights(list(counts), 100, beta) == pytest.approx([1.0, *expected])
    assert positive_weights([0, 5], 10, 0.0) == [1.0, 1.0]
    assert positive_weights([5], 100, 1 - 1e-12) == pytest.approx([19], rel=1e-3)


def with_targets(value):
    """Return loaders whose every target is a value."""
    loaders = make_loaders()
    for loader in (loaders.train, loaders.val):
        loader.dataset.tensors = (loader.dataset.tensors[0], torch.full((len(loader.dataset), 2), value))
    return loaders


@pytest.mark.parametrize(("value", "first"), [(-100.0, "The loss is -"), (float("nan"), "The loss is nan")])
def test_targets_outside_0_to_1_are_named_as_the_cause(value, first):
    error = str(stopped(make_model(), with_targets(value), loss=MultiLabelLoss()))
    assert error.startswith(first)
    assert f"its targets must lie between 0 and 1, they go from {value:g} to {value:g}." in error


class Negated(MultiLabelLoss):
    def forward(self, logits, targets):
        return -super().forward(logits, targets)


def test_a_negative_loss_stops_training_and_says_what_to_give():
    error = str(stopped(make_model(), with_targets(1.0), loss=Negated()))
    assert "cross-entropy is never negative" in error
    assert "Targets or outputs are of the wrong kind" in error
    assert "The loss needs logits and targets from 0 to 1" in error


# Mixtures of images, whose targets are shares


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 7.0)])
def test_the_loss_of_a_mixture_is_that_of_its_images_by_their_share(weights, smoothing):
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * 3
    one, other = torch.arange(20) % 3, torch.arange(20) // 2 % 3
    loss = ClassificationLoss(label_smoothing=smoothing, class_weights=weights)
    for share in (0.0, 0.3, 1.0):
        targets = share * functional.one_hot(one, 3) + (1 - share) * functional.one_hot(other, 3)
        expected = share * loss(logits, one) + (1 - share) * loss(logits, other)
        assert float(loss(logits, targets.float())) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 7.0)])
def test_so_it_is_where_an_image_may_have_several_classes(outputs, weights, smoothing):
    logits, one = outputs
    other = one.roll(1, 0)
    loss = MultiLabelLoss(label_smoothing=smoothing, positive_weights=weights)
    mixed = loss(logits, 0.3 * one + 0.7 * other)
    expected = 0.3 * loss(logits, one) + 0.7 * loss(logits, other)
    assert float(mixed) == pytest.approx(float(expected), rel=1e-5)


@given(
    st.lists(st.lists(st.floats(-200, 200, width=32), min_size=3, max_size=3), min_size=2, max_size=8),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_the_loss_of_a_mixture_is_never_negative_or_without_a_finite_gradient(
    rows, share, smoothing, weighted
):
    logits = torch.tensor(rows, requires_grad=True)
    own = functional.one_hot(torch.arange(len(rows)) % 3, 3).float()
    weights = [0.0, 1.0, 20.0] if weighted else None
    loss = ClassificationLoss(label_smoothing=smoothing, class_weights=weights)
    value = loss(logits, own.roll(1, 0).mul_(1 - share).add_(own * share))
    value.backward()
    assert float(value.detach()) >= 0
    assert torch.isfinite(logits.grad).all()


def test_the_focal_loss_takes_no_shares():
    with pytest.raises(ValueError, match="takes classes"):
        ClassificationLoss(gamma=2.0)(torch.zeros(2, 3), torch.full((2, 3), 1 / 3))
