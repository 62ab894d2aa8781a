"""Probabilities that are what they say: the temperature, and what it is judged by."""

import json

import pytest
import torch

from finetune.analysis.calibration import (
    Bin,
    calibration_error,
    cross_calibrated,
    fit_temperature,
    reliability,
    risk_against_coverage,
)
from finetune.task import MultiLabel, SingleLabel


def answers(number, temperature, *, classes=4, seed=0):
    """Return logits that are `temperature` times too large, and targets drawn from what they ought to say."""
    generator = torch.Generator().manual_seed(seed)
    honest = 2 * torch.randn(number, classes, generator=generator)
    targets = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    return honest * temperature, targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_by_which_logits_are_too_large(temperature):
    logits, targets = answers(20_000, temperature)
    found = fit_temperature(logits, targets, SingleLabel().losses)
    assert found == pytest.approx(temperature, rel=0.05)


def test_it_is_found_of_several_labels_as_well():
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(5000, 3, generator=generator)
    targets = (torch.rand(5000, 3, generator=generator) < honest.sigmoid()).float()
    assert fit_temperature(2 * honest, targets, MultiLabel().losses) == pytest.approx(2, rel=0.05)


def test_a_temperature_lowers_error_and_loss_of_images_that_had_no_part_in_it():
    logits, targets = answers(500, 3.0)
    task = SingleLabel()

    def error(values):
        probabilities = task.probabilities(values)
        assigned = task.assigned(probabilities, None)
        return calibration_error(
            reliability(task.certainty(probabilities, assigned), task.is_right(assigned, targets))
        )

    scaled = cross_calibrated(logits, targets, task.losses)
    assert error(scaled) < error(logits) / 2
    assert task.losses(scaled, targets).mean() < task.losses(logits, targets).mean()
    assert torch.equal(scaled.argmax(1), logits.argmax(1))


def test_an_image_has_no_part_in_its_own_temperature():
    logits, targets = answers(50, 3.0)
    before = cross_calibrated(logits, targets, SingleLabel().losses)
    changed = logits.clone()
    changed[7] *= 100  # changes the temperature of all but those of its own fold
    after = cross_calibrated(changed, targets, SingleLabel().losses)
    assert torch.allclose(after[7] / 100, before[7])


def test_a_few_right_answers_are_no_reason_for_certainty():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    assert 0.5 < fit_temperature(logits, torch.tensor([0, 1, 0]), SingleLabel().losses) < 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_images_are_no_error(number):
    logits, targets = answers(number, 1.0)
    assert torch.isfinite(cross_calibrated(logits, targets, SingleLabel().losses)).all()


def test_answers_of_like_confidence_are_compared_with_how_often_they_are_right():
    confidence = torch.tensor([0.05, 0.05, 0.95, 0.95, 1.0])
    bins = reliability(confidence, torch.tensor([True, False, True, True, False]), bins=10)
    assert bins == [
        Bin(pytest.approx(0.05), 0.5, 2),
        Bin(pytest.approx((0.95 * 2 + 1) / 3), pytest.approx(2 / 3), 3),
    ]
    assert calibration_error(bins) == pytest.approx((2 * 0.45 + 3 * (2.9 / 3 - 2 / 3)) / 5)


def test_the_surest_answers_come_first():
    confidence = torch.tensor([0.9, 0.2, 0.6, 0.4])
    right = torch.tensor([True, False, False, True])
    found = risk_against_coverage(confidence, right, steps=4)
    assert [one.coverage for one in found] == [0.25, 0.5, 0.75, 1.0]
    assert [one.right for one in found] == pytest.approx([1.0, 0.5, 2 / 3, 0.5])
    assert [one.confidence for one in found] == pytest.approx([0.9, 0.6, 0.4, 0.2])


def test_a_run_reports_its_calibration_and_predicts_with_it(small_run):
    report = json.loads((small_run / "report.json").read_text())["calibration"]
    assert report["temperature"] == json.loads((small_run / "model.json").read_text())["temperature"]
    assert report["loss"]["after"] <= report["loss"]["before"]
    assert set(report["expected_calibration_error"]) == {"before", "after"}
    assert report["coverage"][-1]["coverage"] == 1.0


@pytest.mark.parametrize(("classes", "fitted"), [(2, 1_500), (10_000, 1_000)])
def test_a_temperature_looks_at_fewer_images_where_there_are_very_many_classes(classes, fitted):
    seen = set()

    def losses(logits, targets):
        seen.add(len(logits))
        return torch.zeros(len(logits), dtype=torch.float64)

    fit_temperature(torch.zeros(1_500, classes), torch.zeros(1_500, dtype=torch.long), losses)
    assert seen == {fitted}
