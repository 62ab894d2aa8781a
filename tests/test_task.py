"""One class or several: what either task makes of labels, logits and counts, by hand."""

import math

import pytest
import torch

from finetune.errors import ConfigError
from finetune.metrics.multi_label import MultiLabelScores
from finetune.metrics.single_label import SingleLabelScores
from finetune.task import MultiLabel, SingleLabel, task_of
from finetune.task.losses import ClassificationLoss, MultiLabelLoss

ONE, SEVERAL = SingleLabel(), MultiLabel()
TASKS = [ONE, SEVERAL]
COUNTS = [60, 30, 10]
LN2 = math.log(2)


def guess(task, counts=COUNTS, images=100, **changes):
    settings = {"weights": None, "label_smoothing": 0.0, "focal": False, **changes}
    return task.guess(counts, images, **settings)


def shares(task, *arguments, **changes):
    """Return the probabilities of a guess."""
    return task.probabilities(guess(task, *arguments, **changes)[None])[0].tolist()


def test_the_files_of_a_run_and_the_columns_of_a_table_say_which_task_it_is():
    assert [task_of(task.multilabel) for task in TASKS] == TASKS
    assert ONE != SEVERAL


# Labels


def test_a_target_is_a_class_or_0_and_1_for_each():
    assert ONE.target((2,), 4) == 2
    assert [SEVERAL.target(labels, 4) for labels in ((), (1, 3))] == [[0, 0, 0, 0], [0, 1, 0, 1]]
    assert torch.tensor([ONE.target((2,), 4)]).dtype == torch.int64
    assert torch.tensor([SEVERAL.target((2,), 4)]).dtype == torch.float32


def test_one_class_is_one_and_several_are_any_number():
    for labels, accepted in (((), False), ((1,), True), ((0, 2), False)):
        assert ONE.accepts(labels) is accepted
        assert SEVERAL.accepts(labels)


def test_an_image_of_several_classes_is_dealt_for_each_and_one_without_for_having_none():
    assert ONE.strata((4,)) == (4,)
    *classes, everything = SEVERAL.strata((1, 4))
    none, everything_again = SEVERAL.strata(())
    assert classes == [1, 4]
    assert everything == everything_again
    assert len({none, everything, 1, 4}) == 4


@pytest.mark.parametrize("names", [["cat"], ["a|b"]])
def test_the_name_of_one_class_may_hold_anything(names):
    text = ONE.label_text(names)
    assert text == names[0]
    assert ONE.names_in(text) == names


@pytest.mark.parametrize(("names", "text"), [([], ""), (["cat"], "cat"), (["cat", "dog"], "cat|dog")])
def test_several_names_stand_in_one_text(names, text):
    assert SEVERAL.label_text(names) == text
    assert SEVERAL.names_in(text) == names


# What a config may say


def test_auto_is_the_loss_of_the_task_and_focal_goes_with_both():
    assert [task.loss_name("auto", "x") for task in TASKS] == ["cross_entropy", "binary_cross_entropy"]
    assert [task.loss_name("focal", "x") for task in TASKS] == ["focal", "focal"]
    assert ONE.loss_name("cross_entropy", "x") == "cross_entropy"
    assert SEVERAL.loss_name("binary_cross_entropy", "x") == "binary_cross_entropy"
    assert [task.default_monitor for task in TASKS] == ["val_accuracy", "val_map"]


def test_the_loss_of_the_other_task_is_refused():
    with pytest.raises(ConfigError, match=r"^loss.name: binary_cross_entropy .* those of x.csv have one;"):
        ONE.loss_name("binary_cross_entropy", "x.csv")
    with pytest.raises(ConfigError, match=r"^loss.name: cross_entropy .* those of x.csv may have several;"):
        SEVERAL.loss_name("cross_entropy", "x.csv")


def test_what_needs_one_class_for_each_image_is_refused_where_there_may_be_several():
    ONE.require_one_class("no")
    with pytest.raises(ConfigError, match=r"^no$"):
        SEVERAL.require_one_class("no")


# Training


def test_the_loss_has_what_it_is_told():
    one, several = (task.loss(gamma=2.0, label_smoothing=0.1, weights=[1.0, 3.0]) for task in TASKS)
    assert isinstance(one, ClassificationLoss)
    assert isinstance(several, MultiLabelLoss)
    for loss, weights in ((one, one.weights), (several, several.positive_weights)):
        assert (loss.gamma, loss.label_smoothing, weights.tolist()) == (2.0, 0.1, [1.0, 3.0])


def test_balancing_weighs_images_of_one_class_and_positives_of_several():
    # β = ½: the effective number of n images is 2 − 2¹⁻ⁿ, so 1 for one, 1.5 for two and 1.75 for three.
    assert ONE.balance_weights([1, 2], 3, 0.5) == pytest.approx([9 / 7, 6 / 7])  # 3 = 1 · 9/7 + 2 · 6/7
    assert SEVERAL.balance_weights([1, 2], 3, 0.5) == pytest.approx([1.5, 1 / 1.5])


# Guessing


def test_the_loss_of_guessing_is_the_entropy_of_the_classes():
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    losses, accuracy = ONE.judge(guess(ONE).expand(100, -1), targets)
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert float(losses.mean()) == pytest.approx(entropy, rel=1e-5)
    assert accuracy == pytest.approx(0.6)


def test_several_labels_are_guessed_one_by_one():
    targets = torch.zeros(100, 2)
    targets[:20, 0] = 1
    targets[50:, 1] = 1
    losses, _ = SEVERAL.judge(guess(SEVERAL, [20, 50]).expand(100, -1), targets)
    entropy = (-0.2 * math.log(0.2) - 0.8 * math.log(0.8) + LN2) / 2
    assert float(losses.mean()) == pytest.approx(entropy, rel=1e-5)


def test_weights_and_smoothing_move_a_guess():
    # 1 image of weight 3 and 3 of weight 1 are even; smoothing takes a tenth of 1/4, and gives a half of it.
    assert shares(ONE, [1, 3], 4, weights=[3.0, 1.0]) == pytest.approx([0.5, 0.5], rel=1e-6)
    assert shares(ONE, [1, 3], 4, label_smoothing=0.1) == pytest.approx([0.275, 0.725], rel=1e-6)
    # Odds of 1 to 3 with a weight of 3 are even.
    assert shares(SEVERAL, [1, 3], 4, weights=[3.0, 1.0]) == pytest.approx([0.5, 0.75], rel=1e-6)
    assert shares(SEVERAL, [1, 3], 4, label_smoothing=0.1) == pytest.approx([0.275, 0.725], rel=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_the_shares_are_where_the_loss_of_the_training_leads_without_images(task, weighted, label_smoothing):
    """Minimise the very loss of a training over logits that are the same for all images."""
    labels = [(0,)] * 60 + [(1,)] * 30 + [(2,)] * 10
    targets = torch.tensor([task.target(own, 3) for own in labels])
    weights = task.balance_weights(COUNTS, 100, 0.99) if weighted else None
    loss = task.loss(gamma=0.0, label_smoothing=label_smoothing, weights=weights)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(logits.expand(100, -1), targets)
        value.backward()
        return value

    optimizer.step(closure)
    reached = task.probabilities(logits.detach()[None])[0]
    expected = shares(task, weights=weights, label_smoothing=label_smoothing)
    assert reached.tolist() == pytest.approx(expected, abs=2e-3)


def test_a_class_that_training_does_not_have_gives_a_finite_loss():
    assert torch.isfinite(guess(ONE, [90, 10, 0])).all()
    assert torch.isfinite(guess(SEVERAL, [0, 100])).all()


def test_a_focal_loss_is_compared_with_no_preference_at_all():
    assert shares(ONE, focal=True) == pytest.approx([1 / 3] * 3)
    assert shares(SEVERAL, focal=True) == [0.5] * 3
    assert guess(SEVERAL, focal=True).dtype == guess(ONE, focal=True).dtype == torch.float32


def test_curves_are_compared_with_even_classes_or_the_share_of_each():
    assert ONE.baseline([7, 3], 10, label_smoothing=0.0) == (pytest.approx(LN2), 0.5, 0.0)
    assert ONE.baseline([1] * 4, 4, label_smoothing=0.2).least_loss == pytest.approx(
        -0.85 * math.log(0.85) - 3 * 0.05 * math.log(0.05)
    )
    assert SEVERAL.baseline([5, 10], 10, label_smoothing=0.0) == (pytest.approx(LN2 / 2), 0.5, 0.0)
    assert SEVERAL.baseline([5, 5], 10, label_smoothing=0.2).least_loss == pytest.approx(
        -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    )


# Answers and scores


def test_probabilities_are_of_all_classes_together_or_of_each():
    logits = torch.tensor([[0.0, math.log(3)]])
    assert ONE.probabilities(logits)[0].tolist() == pytest.approx([0.25, 0.75])
    assert SEVERAL.probabilities(logits)[0].tolist() == pytest.approx([0.5, 0.75])


def test_an_image_is_given_the_most_probable_class_or_all_from_their_thresholds_on():
    probabilities = torch.tensor([[0.2, 0.7, 0.7], [0.6, 0.1, 0.3]], dtype=torch.float64)
    assert ONE.assigned(probabilities, None).tolist() == [[False, True, False], [True, False, False]]
    given = SEVERAL.assigned(probabilities, [0.2, 0.1, 0.8])
    assert given.tolist() == [[True, True, False], [True, True, False]]
    assert not SEVERAL.assigned(probabilities, [0.9] * 3).any()


def test_scores_of_three_images_by_hand():
    names = ("ant", "bee")
    logits = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0], [0.0, math.log(3)]])
    one = ONE.score(logits, torch.tensor([1, 0, 0]), names)
    assert isinstance(one, SingleLabelScores)
    assert one.accuracy == pytest.approx(2 / 3)
    assert one.loss == pytest.approx(-(2 * math.log(0.75) + math.log(0.25)) / 3)
    several = SEVERAL.score(logits, torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), names, [0.6, 0.6])
    assert isinstance(several, MultiLabelScores)
    assert several.accuracy == pytest.approx(2 / 3)
    assert [row.f1 for row in several.per_class] == pytest.approx([2 / 3, 2 / 3])
    assert several.loss == pytest.approx((LN2 * 3 - 2 * math.log(0.75) - math.log(0.25)) / 6)
    chosen = SEVERAL.score(logits, torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), names)
    assert chosen.thresholds != several.thresholds


@pytest.mark.parametrize("task", TASKS)
def test_what_a_race_looks_at_is_loss_and_accuracy_of_the_task(task):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (300,), generator=generator).tolist()
    logits = torch.randn(300, 6, generator=generator) + 3 * torch.eye(6)[labels]
    targets = torch.tensor([task.target((label,), 6) for label in labels])
    losses, accuracy = task.judge(logits, targets)
    scores = task.score(logits, targets, tuple("abcdef"))
    assert losses.shape == (300,)
    assert float(losses.mean()) == pytest.approx(scores.loss, rel=1e-12)
    assert accuracy == scores.accuracy
    assert 0 < accuracy < 1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixtures_of_images_leave_the_entropy_of_their_shares(smoothing):
    """Compared with the mean entropy of the targets of all pairs of images."""
    shares, labels = [0.9, 0.7, 0.2], [0, 0, 1, 2, 2, 2]
    spread = torch.tensor(smoothing / 3)
    entropies = []
    for share in shares:
        for one in labels:
            for other in labels:
                target = torch.zeros(3)
                target[one] += share
                target[other] += 1 - share
                entropies.append(torch.special.entr(target * (1 - smoothing) + spread).sum())
    counts = [labels.count(label) for label in range(3)]
    found = ONE.baseline(counts, len(labels), label_smoothing=smoothing, shares=shares)
    assert found.least_loss == pytest.approx(float(torch.stack(entropies).mean()), rel=1e-5)
    assert found[:2] == ONE.baseline(counts, len(labels), label_smoothing=smoothing)[:2]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixtures_of_images_with_several_classes_leave_it_for_each_class(smoothing):
    shares = [0.9, 0.7, 0.2]
    targets = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 1]], dtype=torch.float64)
    entropies = []
    for share in shares:
        for one in targets:
            for other in targets:
                yes = (share * one + (1 - share) * other) * (1 - smoothing) + smoothing / 2
                entropies.append((torch.special.entr(yes) + torch.special.entr(1 - yes)).mean())
    counts = targets.sum(0).int().tolist()
    found = SEVERAL.baseline(counts, len(targets), label_smoothing=smoothing, shares=shares)
    assert found.least_loss == pytest.approx(float(torch.stack(entropies).mean()), rel=1e-5)
