import json
import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch

from finetune.metrics.score import scores_from_dict
from finetune.metrics.single_label import (
    accuracy,
    count_confusions,
    cross_entropy,
    score_single_label,
    telling_k,
    top_k_accuracy,
)

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 7, generator=generator)
    targets = torch.randint(0, 5, (200,), generator=generator)  # the last two classes have no image
    logits[torch.arange(200), targets] += 1
    logits[:, 6] -= 100  # and the last one is never predicted
    return logits, targets


def test_accuracy_of_a_hand_made_case():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.5]])
    targets = torch.tensor([0, 1, 1, 2])
    assert accuracy(logits, targets) == 0.5
    assert top_k_accuracy(logits, targets, 2) == 1.0
    assert count_confusions(logits.argmax(1), targets) == ((0, 0, 1), (1, 1, 1), (1, 2, 1), (2, 0, 1))


def test_cross_entropy_of_equal_logits_is_ln_c():
    assert cross_entropy(torch.zeros(4, 10), torch.arange(4)) == pytest.approx(math.log(10), rel=1e-12)


def test_scores_agree_with_scikit_learn(outputs):
    logits, targets = outputs
    scores = score_single_label(logits, targets, NAMES)
    predictions, truth, labels = logits.argmax(1).numpy(), targets.numpy(), range(7)
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        truth, predictions, labels=labels, zero_division=0
    )
    probabilities = logits.double().softmax(1).numpy()
    assert scores.accuracy == pytest.approx(sklearn.metrics.accuracy_score(truth, predictions))
    assert scores.loss == pytest.approx(sklearn.metrics.log_loss(truth, probabilities, labels=labels))
    assert [row.precision for row in scores.per_class] == pytest.approx(list(precision))
    assert [row.recall for row in scores.per_class] == pytest.approx(list(recall))
    assert [row.f1 for row in scores.per_class] == pytest.approx(list(f1))
    assert [row.support for row in scores.per_class] == list(support)
    matrix = sklearn.metrics.confusion_matrix(truth, predictions, labels=labels)
    assert np.array_equal(scores.confusion_matrix, matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sklearn.metrics.top_k_accuracy_score(truth, probabilities, k=3, labels=labels)
    assert scores.top_k == {3: pytest.approx(expected)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two classes have no image
        expected = sklearn.metrics.balanced_accuracy_score(truth, predictions)
    assert scores.balanced_accuracy == pytest.approx(expected)
    assert scores.macro_f1 == pytest.approx(np.mean(f1[support > 0]))
    one_hot = np.eye(7)[truth]
    expected = [sklearn.metrics.average_precision_score(one_hot[:, c], probabilities[:, c]) for c in range(5)]
    assert scores.map == pytest.approx(np.mean(expected), rel=1e-12)


def test_top_k_is_given_only_where_it_says_something():
    assert [telling_k(classes) for classes in (2, 5, 6, 9, 10)] == [(), (), (3,), (3,), (3, 5)]


def test_scores_turn_into_json_values(outputs):
    values = json.loads(json.dumps(score_single_label(*outputs, NAMES).to_dict()))
    assert set(values) == {
        *("loss", "accuracy", "map", "balanced_accuracy", "macro_f1", "top_k"),
        *("per_class", "confusion_matrix", "class_names", "images"),
    }
    assert values["per_class"][0]["name"] == "ant"
    assert scores_from_dict(values) == score_single_label(*outputs, NAMES)


def test_of_very_many_classes_json_holds_what_of_the_matrix_is_not_zero():
    """Ten thousand classes have a hundred million cells."""
    names = tuple(f"class {number}" for number in range(10_000))
    logits, targets = torch.zeros(3, 10_000), torch.tensor([9_999, 7, 7])
    logits[0, 9_999] = logits[1, 7] = logits[2, 3] = 5.0
    scores = score_single_label(logits, targets, names)
    assert scores.confusions == ((7, 3, 1), (7, 7, 1), (9_999, 9_999, 1))
    assert scores.never_predicted == set(names) - {"class 3", "class 7", "class 9999"}
    text = json.dumps(scores.to_dict())
    assert len(text) < 2_000_000
    assert "confusion_matrix" not in text
    assert scores_from_dict(json.loads(text)) == scores
