"""Doubt of labels: by classifiers that have not seen the image, highest where labels were swapped."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from finetune.analysis.label_doubt import deal_folds, judge_labels, likely_targets, ranks


def made_up(n=90, d=12, classes=3, seed=0):
    """Return features of classes that lie apart, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % classes
    centres = 3 * torch.randn(classes, d, generator=generator)
    return centres[targets] + torch.randn(n, d, generator=generator) + 5, targets


def one_hot(targets, classes=3):
    return torch.nn.functional.one_hot(targets, classes).float()


def test_swapped_labels_are_the_most_doubtful_and_their_own_class_is_likely():
    features, right = made_up()
    swapped = [4, 31, 62]
    given = right.clone()
    given[swapped] = (given[swapped] + 1) % 3
    found = judge_labels(features, one_hot(given), several=False)
    assert set(found.doubt.argsort(descending=True)[:3].tolist()) == set(swapped)
    assert torch.equal(likely_targets(found.probabilities, several=False).argmax(1), right)
    assert 0 <= float(found.doubt.min()) < 0.3
    assert 0.9 < float(found.doubt.max()) <= 1
    assert torch.allclose(found.probabilities.sum(1), torch.ones(90, dtype=torch.float64))


def test_no_judge_has_seen_the_label_that_it_judges():
    """With features that say nothing, whoever had seen a label would believe it."""
    features = torch.randn(200, 150, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(200) % 2
    found = judge_labels(features, one_hot(targets, 2), several=False)
    right = (found.probabilities.argmax(1) == targets).float().mean()
    assert 0.35 < float(right) < 0.65


def test_classes_that_are_missing_where_several_may_be_are_doubtful():
    generator = torch.Generator().manual_seed(0)
    right = (torch.rand(120, 3, generator=generator) > 0.5).float()
    features = right @ (4 * torch.randn(3, 10, generator=generator))
    features += torch.randn(120, 10, generator=generator)
    given = right.clone()
    given[7, 1] = 1 - given[7, 1]
    given[50, 2] = 1 - given[50, 2]
    found = judge_labels(features, given, several=True)
    assert set(found.doubt.argsort(descending=True)[:2].tolist()) == {7, 50}
    likely = likely_targets(found.probabilities, several=True)
    assert torch.equal(likely[[7, 50]], right[[7, 50]])
    assert found.probabilities.shape == (120, 3)


@pytest.mark.parametrize("several", [False, True])
def test_the_same_labels_are_judged_the_same(several):
    features, targets = made_up(40)
    one, two = (judge_labels(features, one_hot(targets), several=several) for _ in range(2))
    assert torch.equal(one.doubt, two.doubt)
    assert torch.equal(one.probabilities, two.probabilities)


@pytest.mark.parametrize("several", [False, True])
def test_few_images_and_features_that_never_change_do_no_harm(several):
    features, targets = made_up(7)
    targets[:] = 0
    targets[3], targets[5] = 1, 2  # of which nobody else knows anything
    features[:, 2] = 7.0
    features[1] = features[0]
    for values in (features, torch.ones(7, 4)):
        found = judge_labels(values, one_hot(targets), several=several)
        assert torch.isfinite(found.doubt).all()
        assert torch.isfinite(found.probabilities).all()


def test_ranks_are_scipys_from_0_to_1():
    values = np.array([3.0, 1.0, 2.0, 2.0, 5.0, 1.0, 1.0])
    assert np.allclose(ranks(values), (rankdata(values) - 1) / 6)
    assert ranks(np.array([4.0])).tolist() == [0.0]


def test_folds_have_the_same_part_of_every_class():
    labels = [0] * 20 + [1] * 10 + [2] * 3
    fold = deal_folds(labels, 5)
    assert np.bincount(fold[:20], minlength=5).tolist() == [4] * 5
    assert np.bincount(fold[20:30], minlength=5).tolist() == [2] * 5
    assert sorted(np.bincount(fold[30:], minlength=5).tolist()) == [0, 0, 1, 1, 1]
    assert max(np.bincount(fold)) - min(np.bincount(fold)) <= 1


def test_the_judges_report_when_they_are_done():
    features, targets = made_up(30)
    done = []
    judge_labels(features, one_hot(targets), several=False, advance=done.append)
    assert done == [1, 1, 1]
