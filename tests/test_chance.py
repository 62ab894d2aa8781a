"""What guessing brings, by hand and by an optimizer that knows nothing but the targets."""

import math

import pytest
import torch
from torch import nn

from finetune.data.loading.balance import class_weights, positive_weights
from finetune.lr_finder.chance import expected_shares, guessing_logits
from finetune.metrics.score import judge
from finetune.training.losses import choose_loss

COUNTS = [60, 30, 10]


def shares(counts=COUNTS, images=100, **changes):
    settings = {"multilabel": False, "weights": None, "label_smoothing": 0.0, "focal": False, **changes}
    return expected_shares(counts, images, **settings)


def test_the_loss_of_guessing_is_the_entropy_of_the_classes():
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    logits = guessing_logits(shares(), multilabel=False).expand(100, -1)
    losses, accuracy = judge(logits, targets)
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert float(losses.mean()) == pytest.approx(entropy, rel=1e-5)
    assert accuracy == pytest.approx(0.6)


def test_several_labels_are_guessed_one_by_one():
    targets = torch.zeros(100, 2)
    targets[:20, 0] = 1
    targets[50:, 1] = 1
    logits = guessing_logits(shares([20, 50], multilabel=True), multilabel=True).expand(100, -1)
    losses, _ = judge(logits, targets)
    entropy = (-0.2 * math.log(0.2) - 0.8 * math.log(0.8) + math.log(2)) / 2
    assert float(losses.mean()) == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("multilabel", [False, True])
def test_the_shares_are_where_the_loss_of_the_training_leads_without_images(
    multilabel, weighted, label_smoothing
):
    """Minimise the very loss of a training over logits that are the same for all images."""
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    if multilabel:
        targets = nn.functional.one_hot(targets, 3).float()
    weights = None
    if weighted:
        weights = positive_weights(COUNTS, 100, 0.99) if multilabel else class_weights(COUNTS, 0.99)
    loss = choose_loss(multilabel=multilabel, gamma=0.0, label_smoothing=label_smoothing, weights=weights)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(logits.expand(100, -1), targets)
        value.backward()
        return value

    optimizer.step(closure)
    reached = logits.sigmoid() if multilabel else logits.softmax(0)
    expected = shares(multilabel=multilabel, weights=weights, label_smoothing=label_smoothing)
    assert reached.tolist() == pytest.approx(expected, abs=2e-3)


def test_a_class_that_training_does_not_have_gives_a_finite_loss():
    logits = guessing_logits(shares([90, 10, 0]), multilabel=False)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(guessing_logits([0.0, 1.0], multilabel=True)).all()


def test_a_focal_loss_is_compared_with_no_preference_at_all():
    assert shares(focal=True) == [1 / 3] * 3
    assert shares(focal=True, multilabel=True) == [0.5] * 3
