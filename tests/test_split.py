import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.split import limit_per_class, stratified_split

NAMES = [f"{name}/{i:03d}.jpg" for name in "abc" for i in range(50)]
TARGETS = [target for target in range(3) for _ in range(50)]

names_and_targets = st.dictionaries(st.text(max_size=8), st.integers(0, 3), min_size=1, max_size=40)


def held_out(names, targets, fraction=0.2, seed=1):
    flags = stratified_split(names, targets, fraction=fraction, seed=seed)
    return {name for name, flag in zip(names, flags, strict=True) if flag}


def two_of_each(samples):
    """Make a data set with at least two samples in every class."""
    targets = set(samples.values())
    return samples | {f"extra {target} {i}": target for target in targets for i in range(2)}


def test_each_class_gives_its_fraction():
    chosen = held_out(NAMES, TARGETS)
    assert [sum(name.startswith(letter) for name in chosen) for letter in "abc"] == [10, 10, 10]


def test_the_seed_decides():
    assert held_out(NAMES, TARGETS, seed=1) == held_out(NAMES, TARGETS, seed=1)
    assert held_out(NAMES, TARGETS, seed=1) != held_out(NAMES, TARGETS, seed=2)


@given(names_and_targets, st.floats(0.01, 0.99), st.randoms())
def test_every_class_is_on_both_sides_and_the_order_does_not_matter(samples, fraction, random):
    samples = two_of_each(samples)
    chosen = held_out(list(samples), list(samples.values()), fraction)
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert held_out(shuffled, [samples[name] for name in shuffled], fraction) == chosen
    for target in set(samples.values()):
        members = {name for name in samples if samples[name] == target}
        assert 0 < len(members & chosen) < len(members)
        assert abs(len(members & chosen) - fraction * len(members)) <= 1


@given(names_and_targets, st.text(min_size=9, max_size=12), st.integers(0, 3), st.floats(0.01, 0.99))
@settings(max_examples=200)
def test_an_added_file_moves_at_most_one_other_and_only_of_its_class(samples, name, target, fraction):
    samples = two_of_each(samples)
    if target not in samples.values():
        return
    before = held_out(list(samples), list(samples.values()), fraction)
    more = samples | {name: target}
    after = held_out(list(more), list(more.values()), fraction)
    moved = (before ^ after) - {name}
    assert len(moved) <= 1
    assert all(samples[other] == target for other in moved)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        stratified_split(["a", "b"], [0, 0], fraction=fraction, seed=1)


def test_a_class_with_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match="class 1 has 1 sample"):
        stratified_split(["a", "b", "c"], [0, 0, 1], fraction=0.5, seed=1)


def test_undecodable_names_can_be_split():
    names = [os.fsdecode(b"\xff%d" % i) for i in range(4)]
    assert sum(stratified_split(names, [0] * 4, fraction=0.5, seed=1)) == 2


def test_fewer_images_per_class_are_a_subset_of_more():
    few = limit_per_class(NAMES, TARGETS, limit=5, seed=1)
    more = limit_per_class(NAMES, TARGETS, limit=20, seed=1)
    assert sum(few) == 15
    assert sum(more) == 60
    assert all(in_more for in_few, in_more in zip(few, more, strict=True) if in_few)
    assert all(limit_per_class(NAMES, TARGETS, limit=1000, seed=1))
