"""Scores of images that may have several classes: against scikit-learn, and thresholds by trying them all."""

import json

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.metrics.multi_label import MultiLabelScores, score_multi_label
from finetune.metrics.ranking import average_precisions, best_thresholds
from finetune.metrics.score import scores_from_dict

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


@pytest.fixture
def outputs():
    """Return 300 images; every one has a dog, none an eel, and some share their probabilities."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(300, 6, generator=generator) < torch.tensor([0.5, 0.1, 0.02, 1, 0, 0.3])).float()
    logits = torch.randn(300, 6, generator=generator) + 2 * targets - 1
    logits[:, 5] = logits[:, 5].round()
    return logits, targets


def problem(steps):
    """Return probabilities with many ties, and whether the class is there."""
    pair = st.tuples(st.integers(0, steps).map(lambda n: n / steps), st.booleans())
    return st.lists(pair, min_size=1, max_size=12)


def columns(pairs):
    probabilities, targets = zip(*pairs, strict=True)
    return torch.tensor(probabilities, dtype=torch.float64)[:, None], torch.tensor(targets).float()[:, None]


def test_average_precision_is_that_of_scikit_learn(outputs):
    logits, targets = outputs
    found = average_precisions(logits.double().sigmoid(), targets)
    assert torch.isnan(found[4])
    for c in (0, 1, 2, 3, 5):
        expected = sklearn.metrics.average_precision_score(targets[:, c].numpy(), logits[:, c].numpy())
        assert float(found[c]) == pytest.approx(expected, rel=1e-12)


@given(problem(4).filter(lambda pairs: any(there for _, there in pairs)))
@settings(max_examples=300, deadline=None)
def test_average_precision_counts_equal_probabilities_as_scikit_learn_does(pairs):
    probabilities, targets = columns(pairs)
    expected = sklearn.metrics.average_precision_score(targets[:, 0].numpy(), probabilities[:, 0].numpy())
    assert float(average_precisions(probabilities, targets)) == pytest.approx(expected, rel=1e-12)


def test_a_class_of_one_image_and_one_of_all_but_one_have_their_whole_recall():
    targets = torch.tensor([[1, 1], [0, 1], [0, 0]])
    scores = score_multi_label(20.0 * targets - 10, targets, NAMES[:2])
    assert [(row.support, row.precision, row.recall, row.f1) for row in scores.per_class] == [
        (1, 1, 1, 1),
        (2, 1, 1, 1),
    ]
    wrong = score_multi_label(10.0 - 20 * targets[:, :1], targets[:, :1], NAMES[:1], [0.5])
    assert wrong.balanced_accuracy == 0


def f1_at(pairs, threshold):
    hits = sum(p >= threshold and there for p, there in pairs)
    return 2 * hits / (sum(p >= threshold for p, _ in pairs) + sum(there for _, there in pairs))


@given(problem(6))
@settings(max_examples=300, deadline=None)
def test_the_threshold_is_the_best_of_all_that_could_be_tried(pairs):
    found = float(best_thresholds(*columns(pairs)))
    if not any(there for _, there in pairs):
        assert found == 0.5
        return
    values = sorted({p for p, _ in pairs})
    middles = [(low + high) / 2 for low, high in zip([0.0, *values], values, strict=False)]
    best = max(f1_at(pairs, middle) for middle in middles)
    assert f1_at(pairs, found) == best >= max(f1_at(pairs, step / 100) for step in range(101))
    assert abs(found - 0.5) == min(abs(m - 0.5) for m in middles if f1_at(pairs, m) == best)


def test_a_threshold_lies_between_neighbours_among_the_floats_as_well():
    low = 0.3
    high = np.nextafter(low, 1)
    assert float(best_thresholds(*columns([(high, True), (low, False)]))) == high


def test_classes_are_looked_at_in_blocks_without_a_difference(outputs, monkeypatch):
    logits, targets = outputs
    probabilities = logits.double().sigmoid()
    whole = average_precisions(probabilities, targets), best_thresholds(probabilities, targets)
    monkeypatch.setattr("finetune.metrics.ranking._BLOCK", 700)
    assert torch.equal(average_precisions(probabilities, targets).nan_to_num(), whole[0].nan_to_num())
    assert torch.equal(best_thresholds(probabilities, targets), whole[1])


def test_all_scores_agree_with_scikit_learn(outputs):
    logits, targets = outputs
    thresholds = [0.5, 0.2, 0.9, 0.5, 0.5, 0.5]
    scores = score_multi_label(logits, targets, NAMES, thresholds)
    probabilities, truth = logits.double().sigmoid().numpy(), targets.numpy().astype(int)
    answers = (probabilities >= thresholds).astype(int)
    rates = sklearn.metrics.precision_recall_fscore_support(truth, answers, zero_division=0)
    for number, what in enumerate(("precision", "recall", "f1", "support")):
        assert [getattr(row, what) for row in scores.per_class] == pytest.approx(list(rates[number]))
    present = rates[3] > 0
    assert scores.macro_f1 == pytest.approx(rates[2][present].mean())
    assert scores.micro_f1 == pytest.approx(sklearn.metrics.f1_score(truth, answers, average="micro"))
    assert scores.accuracy == pytest.approx(sklearn.metrics.accuracy_score(truth, answers))
    assert scores.map == pytest.approx(
        sklearn.metrics.average_precision_score(truth[:, present], probabilities[:, present])
    )
    balanced = [
        sklearn.metrics.recall_score(truth[:, c], answers[:, c])  # every image has a dog
        if c == 3
        else sklearn.metrics.balanced_accuracy_score(truth[:, c], answers[:, c])
        for c in np.flatnonzero(present)
    ]
    assert scores.balanced_accuracy == pytest.approx(np.mean(balanced))
    losses = [sklearn.metrics.log_loss(truth[:, c], probabilities[:, c], labels=[0, 1]) for c in range(6)]
    assert scores.loss == pytest.approx(np.mean(losses))
    assert scores.thresholds == tuple(thresholds)
    assert scores.per_class[4].average_precision is None


def test_thresholds_that_are_not_given_are_chosen(outputs):
    logits, targets = outputs
    scores = score_multi_label(logits, targets, NAMES)
    assert scores.thresholds == tuple(best_thresholds(logits.double().sigmoid(), targets).tolist())
    assert scores.macro_f1 > score_multi_label(logits, targets, NAMES, [0.5] * 6).macro_f1


def test_images_without_any_class_have_scores_all_the_same():
    scores = score_multi_label(torch.zeros(3, 2), torch.zeros(3, 2), ("a", "b"), [0.6, 0.6])
    assert (scores.map, scores.macro_f1, scores.accuracy) == (0.0, 0.0, 1.0)


def test_scores_come_back_from_json(outputs):
    scores = score_multi_label(*outputs, NAMES)
    values = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert scores_from_dict(values) == scores
    assert isinstance(scores, MultiLabelScores)
    assert set(values) == {
        *("loss", "map", "accuracy", "balanced_accuracy", "macro_f1", "micro_f1"),
        *("per_class", "class_names", "images"),
    }
