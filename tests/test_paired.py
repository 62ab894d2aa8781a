"""Two models on the same images: the test, the interval, and what neither is surprised by."""

import pytest
import torch
from scipy.stats import binom

from finetune.analysis.paired import compare_paired


def answers(both=0, first=0, second=0, neither=0):
    """Return what two models have right, by how many images of each kind there are."""
    mine = [True] * both + [True] * first + [False] * second + [False] * neither
    theirs = [True] * both + [False] * first + [True] * second + [False] * neither
    return torch.tensor(mine), torch.tensor(theirs)


def test_mcnemars_exact_test_counts_what_one_alone_has_right():
    found = compare_paired(*answers(both=80, first=2, second=10, neither=8))
    assert (found.images, found.first_only, found.second_only) == (100, 2, 10)
    assert found.difference == pytest.approx(0.08)
    assert found.p_value == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert found.low < 0.08 < found.high


def test_equal_models_differ_by_nothing():
    found = compare_paired(*answers(both=50, neither=50))
    assert (found.difference, found.p_value) == (0, 1.0)
    assert found.low < 0 < found.high


def test_the_first_may_be_ahead():
    found = compare_paired(*answers(both=50, first=30, second=2))
    assert found.difference < found.high < 0
    assert found.p_value < 0.001


def test_what_agrees_changes_the_interval_and_not_the_test():
    few, many = compare_paired(*answers(5, 3, 9)), compare_paired(*answers(500, 3, 9))
    assert few.p_value == many.p_value
    assert many.high - many.low < few.high - few.low


def test_the_interval_holds_its_level():
    """Of 400 pairs of models with a known difference, the interval misses it in about one of twenty."""
    generator = torch.Generator().manual_seed(0)
    missed = 0
    for _ in range(400):
        drawn = torch.rand(150, generator=generator)
        first, second = (drawn < 0.8) | (drawn > 0.96), drawn < 0.9  # 84% and 90%
        found = compare_paired(first, second)
        missed += not found.low <= 0.06 <= found.high
    assert missed <= 34


def test_one_image_is_compared():
    found = compare_paired(*answers(second=1))
    assert (found.difference, found.p_value) == (1.0, 1.0)
    assert -1 <= found.low < found.high <= 1
