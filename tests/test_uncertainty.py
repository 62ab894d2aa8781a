"""Standard errors: formulas by hand, and the jackknife against them and against new images."""

import math

import pytest
import torch

from finetune.analysis.uncertainty import is_beyond_chance, pseudo_values, share_interval, standard_error
from finetune.metrics.ranking import average_precisions


def test_the_standard_error_of_a_share_is_the_binomial_one():
    right = torch.tensor([1.0] * 80 + [0.0] * 20)
    assert standard_error(right) == pytest.approx(math.sqrt(0.8 * 0.2 / 99))
    assert math.isnan(standard_error(right[:1]))


def test_pseudo_values_of_a_mean_over_images_are_its_images():
    values = torch.rand(40, dtype=torch.float64)
    found = pseudo_values(lambda positions: float(values[positions].mean()), 40)
    assert torch.allclose(found.sort().values, values.sort().values)


def test_pseudo_values_of_many_images_are_those_of_a_hundred_groups():
    values = torch.randn(1_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = pseudo_values(lambda positions: float(values[positions].mean()), 1_000)
    assert len(found) == 100
    assert float(found.mean()) == pytest.approx(float(values.mean()))
    assert standard_error(found) == pytest.approx(standard_error(values), rel=0.2)


def test_the_error_of_average_precision_is_the_spread_over_new_images():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        targets = (torch.rand(300, 1, generator=generator) < 0.3).double()
        return (targets + torch.randn(300, 1, generator=generator, dtype=torch.float64)).sigmoid(), targets

    def score(values, targets):
        return float(average_precisions(values, targets))

    samples = [draw(seed) for seed in range(200)]
    spread = float(torch.tensor([score(*sample) for sample in samples]).std())
    errors = [
        standard_error(pseudo_values(lambda at, s=sample: score(s[0][at], s[1][at]), 300))
        for sample in samples[:20]
    ]
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.25)


def test_a_difference_is_beyond_chance_from_two_of_its_errors_on():
    assert is_beyond_chance(0.021, 0.01)
    assert is_beyond_chance(-0.021, 0.01)
    assert not is_beyond_chance(0.02, 0.01)
    assert not is_beyond_chance(0.0, 0.0)
    assert not is_beyond_chance(0.5, math.nan)


def test_the_interval_of_a_share_is_wilsons():
    from scipy.stats import binomtest

    for right, of in ((0, 5), (4, 6), (355, 359), (7, 7)):
        theirs = binomtest(right, of).proportion_ci(method="wilson")
        assert share_interval(right, of) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
