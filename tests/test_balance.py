"""Uneven classes: weights, the sampler, the losses, and what is monitored."""

import csv
import json
import math
import os
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import draw_images, index_images, run_finetune, some_quick, write_small_config
from hypothesis import given, settings
from hypothesis import strategies as st
from run_result import result_of
from test_guards import stopped
from test_loop import make_loaders, make_model
from test_resume import CONFIG, as_if_killed_at

from finetune.config.config import Config
from finetune.data.images import ImageLimits
from finetune.data.loading.dataset import TrainImages
from finetune.data.loading.loaders import build_train_loader
from finetune.data.loading.sampler import EpochSampler, balanced_order
from finetune.data.loading.transforms import train_transform
from finetune.errors import ConfigError
from finetune.metrics.monitor import HIGHER_IS_BETTER, is_better
from finetune.model.preprocessing import Preprocessing
from finetune.task.balance import class_weights
from finetune.task.losses import ClassificationLoss

# Weights


def test_weights_are_the_inverse_of_the_effective_number_of_images():
    counts, beta = np.array([5000, 1000, 50]), 0.999
    expected = (1 - beta) / (1 - beta**counts)  # Cui et al. (2019), equation 2
    expected *= counts.sum() / (counts * expected).sum()
    assert class_weights(list(counts), beta) == pytest.approx(list(expected))


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1 - 1e-12])
def test_the_mean_weight_of_an_image_is_one(beta):
    counts = [300, 20, 0, 7]
    weights = class_weights(counts, beta)
    assert sum(n * w for n, w in zip(counts, weights, strict=True)) == pytest.approx(sum(counts))
    assert weights[2] == 0


def test_beta_goes_from_equal_images_to_equal_classes():
    assert class_weights([100, 5], 0) == pytest.approx([1, 1])
    even = class_weights([100, 5], 1 - 1e-12)
    assert 100 * even[0] == pytest.approx(5 * even[1])
    assert class_weights([7, 7, 7], 0.999) == pytest.approx([1, 1, 1])


# The sampler


TARGETS = [0] * 140 + [1] * 40 + [2] * 7


def shown(seed, beta=1 - 1e-9):
    counts = [TARGETS.count(target) for target in range(3)]
    return balanced_order(TARGETS, class_weights(counts, beta), seed)


@given(st.integers(0, 2**63 - 1))
@settings(max_examples=50, deadline=None)
def test_an_epoch_is_as_long_as_ever_and_shows_each_class_evenly(seed):
    order = shown(seed)
    assert len(order) == len(TARGETS)
    per_class = Counter(TARGETS[position] for position in order)
    assert all(number in (62, 63) for number in per_class.values())  # 187 / 3
    times = Counter(order)
    for target in range(3):
        of_class = [times[position] for position, own in enumerate(TARGETS) if own == target]
        assert max(of_class) - min(of_class) <= 1


def test_the_order_is_a_function_of_the_seed():
    assert shown(1) == shown(1)
    assert shown(1) != shown(2)
    assert shown(1) != sorted(shown(1))


def test_shares_are_met_in_the_mean_though_they_are_no_whole_numbers():
    numbers = [Counter(TARGETS[p] for p in shown(seed))[2] for seed in range(300)]
    assert set(numbers) == {62, 63}
    assert sum(numbers) / len(numbers) == pytest.approx(187 / 3, abs=0.1)


def sampler():
    counts = [TARGETS.count(target) for target in range(3)]
    weights = class_weights(counts, 0.999)
    return EpochSampler(len(TARGETS), 8, 5, lambda seed: balanced_order(TARGETS, weights, seed))


def keys(stage, epoch, first_batch=0):
    one = sampler()
    one.start_epoch(stage, epoch, first_batch)
    return list(one)


def test_a_balanced_epoch_can_begin_at_any_batch():
    whole = keys(1, 2)
    assert keys(1, 2) == whole
    for first in (1, 7, 22):
        assert keys(1, 2, first) == whole[8 * first :]
    assert keys(1, 3) != whole
    assert keys(0, 2) != whole


def test_an_image_that_comes_again_is_augmented_in_another_way():
    seeds = [key.seed for key in keys(0, 0)]
    assert len(set(seeds)) == len(seeds)


def test_the_first_time_in_an_epoch_an_image_is_augmented_as_without_balance():
    plain = EpochSampler(len(TARGETS), 8, 5)
    plain.start_epoch(0, 0)
    usual = dict(iter(plain))
    first = {}
    for key in keys(0, 0):
        first.setdefault(key.position, key.seed)
    assert first.items() <= usual.items()


@pytest.mark.parametrize("workers", [0, 1])
def test_balanced_batches_are_the_same_with_any_number_of_workers(tmp_path, workers):
    draw_images(tmp_path, classes=("cat", "dog"), each=12)
    for i in range(8):
        (tmp_path / "dog" / f"dog{i:02}.png").unlink()
    index = index_images(tmp_path, seed=1)
    counts = list(index.counts("train").values())
    transform = train_transform("strong", Preprocessing(24, 28, (0.5,) * 3, (0.25,) * 3, "bilinear"))

    def epoch(workers):
        loader = build_train_loader(
            TrainImages(index, ImageLimits(), transform),
            batch_size=4,
            seed=3,
            workers=workers,
            class_weights=class_weights(counts, 0.999),
        )
        loader.sampler.start_epoch(0, 0)
        return list(loader)

    batches = epoch(workers)
    for (images, targets), (others, other_targets) in zip(batches, epoch(0), strict=True):
        assert torch.equal(images, others)
        assert torch.equal(targets, other_targets)
    shown = torch.cat([targets for _, targets in batches]).bincount()
    assert counts[0] >= 3 * counts[1]
    assert abs(int(shown[0] - shown[1])) <= 4


# Losses


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 3, generator=generator) * 3, torch.randint(0, 3, (40,), generator=generator)


def test_the_plain_loss_is_that_of_torch_bit_for_bit(outputs):
    for smoothing in (0.0, 0.1):
        expected = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(*outputs)
        assert torch.equal(ClassificationLoss(label_smoothing=smoothing)(*outputs), expected)


def test_focal_and_weighted_losses_follow_their_formula(outputs):
    logits, targets = (tensor.numpy() for tensor in outputs)
    p = np.exp(logits.astype(float))
    p = (p / p.sum(1, keepdims=True))[np.arange(40), targets]
    weights = np.array([0.5, 1.0, 4.0])
    cases = {
        (2.0, None): (1 - p) ** 2 * -np.log(p),
        (0.5, None): (1 - p) ** 0.5 * -np.log(p),
        (0.0, (0.5, 1.0, 4.0)): weights[targets] * -np.log(p),
        (1.0, (0.5, 1.0, 4.0)): weights[targets] * (1 - p) * -np.log(p),
    }
    for (gamma, of_classes), expected in cases.items():
        loss = ClassificationLoss(gamma=gamma, class_weights=of_classes)
        assert float(loss(*outputs)) == pytest.approx(expected.mean(), rel=1e-5)


def test_focal_loss_with_gamma_0_is_cross_entropy(outputs):
    weighted = ClassificationLoss(gamma=0.0, class_weights=[1.0, 1.0, 1.0])
    assert float(weighted(*outputs)) == pytest.approx(float(ClassificationLoss()(*outputs)), rel=1e-6)


@given(
    st.lists(st.lists(st.floats(-200, 200, width=32), min_size=3, max_size=3), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_no_loss_is_ever_negative_or_without_a_finite_gradient(rows, gamma, smoothing, weighted):
    logits = torch.tensor(rows, requires_grad=True)
    weights = [0.0, 1.0, 20.0] if weighted else None
    loss = ClassificationLoss(gamma=gamma, label_smoothing=smoothing, class_weights=weights)
    value = loss(logits, torch.arange(len(rows)) % 3)
    value.backward()
    assert float(value.detach()) >= 0
    assert torch.isfinite(logits.grad).all()


class Negated(ClassificationLoss):
    def forward(self, logits, targets):
        return -super().forward(logits, targets)


def test_a_negative_focal_loss_stops_training_as_any_other():
    loss = Negated(gamma=2.0, class_weights=[1.0, 3.0])
    assert "is never negative" in str(stopped(make_model(), make_loaders(), loss=loss))


def test_gamma_is_of_focal_alone():
    def loss(**section):
        return Config.model_validate({"data": {"path": "x"}, "loss": section}).loss

    assert [loss().focus, loss(name="focal").focus, loss(name="focal", gamma=0.5).focus] == [0.0, 2.0, 0.5]
    for name in ("auto", "cross_entropy", "binary_cross_entropy"):
        with pytest.raises(ConfigError, match=f"{name} has no gamma; write name: focal"):
            loss(name=name, gamma=2.0)


# What is monitored


@pytest.mark.parametrize("monitor", HIGHER_IS_BETTER)
def test_every_score_has_a_direction_and_nan_is_never_better(monitor):
    better, worse = (0.9, 0.1) if HIGHER_IS_BETTER[monitor] else (0.1, 0.9)
    assert is_better(better, worse, monitor)
    assert not is_better(worse, better, monitor)
    assert not is_better(better, better, monitor)
    assert is_better(worse, None, monitor)
    assert is_better(worse, math.nan, monitor)
    assert not any(is_better(math.nan, than, monitor) for than in (None, worse, math.nan))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Return a folder of 40 images of cats, 6 of dogs and 5 of owls."""
    root = draw_images(tmp_path_factory.mktemp("uneven"), classes=("cat", "dog", "owl"), each=6)
    draw_images(root, classes=("cat",), each=40)
    return root


@pytest.mark.parametrize(
    "monitor", some_quick([*HIGHER_IS_BETTER, None], "val_accuracy", "val_macro_f1", None)
)
def test_the_best_epoch_is_the_one_of_the_best_monitored_score(uneven, tmp_path, monitor):
    config = write_small_config(tmp_path, uneven)
    balance = ["data.balance=sampler", "loss.name=focal", "loss.label_smoothing=0.1"]
    keys = balance if monitor is None else [f"monitor={monitor}", "data.balance=loss"]
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", *keys)
    assert result.exit_code == 0, result.output
    monitor = monitor or "val_accuracy"
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").read_text().splitlines()))
    sign = 1 if HIGHER_IS_BETTER[monitor] else -1
    values = [(sign * float(row[monitor]), -float(row["val_loss"])) for row in rows]
    expected = values.index(max(values))  # of equally good ones the surest
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    best = report["best"]
    assert (best["stage"], str(best["epoch"])) == (rows[expected]["stage"], rows[expected]["epoch"])
    assert best["val_macro_f1"] == report["val"]["macro_f1"]
    assert best["val_balanced_accuracy"] == report["val"]["balanced_accuracy"]
    assert ("macro F1      time" in result.stdout) == (monitor == "val_macro_f1")
    assert "balance " in result.stdout


def test_a_balanced_stage_can_have_its_rate_found(uneven, tmp_path):
    config = write_small_config(tmp_path, uneven)
    keys = ("data.balance=sampler", "loss.name=focal", "lr_finder.pick=minimum", "lr_finder.steps=30")
    result = run_finetune("lr-find", config, *keys, "--json")
    assert result.exit_code in (0, 4), result.output  # so small a data set may show nothing
    assert json.loads(result.stdout)["stage"] == "frozen"


@pytest.mark.slow
def test_a_balanced_training_goes_on_bit_for_bit(uneven, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(path=uneven))
    keys = ("data.balance=sampler", "loss.name=focal", "stages.unfrozen.lr=1e-3", "stages.frozen.epochs=1")
    finished = tmp_path / "finished"
    result = run_finetune("train", config, "--run-dir", finished, *keys)
    assert result.exit_code == 0, result.output
    names = sorted(os.listdir(finished / "checkpoints"))
    for name in (names[2], names[-3]):
        as_if_killed_at(name, finished, tmp_path / name)
        result = run_finetune("train", "--resume", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert result_of(tmp_path / name) == result_of(finished)
