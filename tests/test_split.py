import itertools
import os
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.split import (
    grouped_folds,
    grouped_split,
    limit_per_class,
    stratified_folds,
    stratified_split,
)

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


def test_another_seed_keeps_other_images_and_deals_other_folds():
    few = [limit_per_class(NAMES, TARGETS, limit=5, seed=seed) for seed in (1, 2)]
    folds = [stratified_folds(NAMES, TARGETS, folds=4, seed=seed) for seed in (1, 2)]
    assert few[0] != few[1]
    assert folds[0] != folds[1]


# Folds


@given(names_and_targets, st.integers(2, 12), st.randoms())
def test_folds_are_a_partition_with_equal_shares_whatever_the_order(samples, folds, random):
    samples = two_of_each(samples)
    flags = stratified_folds(list(samples), list(samples.values()), folds=folds, seed=1)
    fold_of = dict(zip(samples, flags, strict=True))
    assert set(fold_of.values()) <= set(range(folds))
    shuffled = list(samples)
    random.shuffle(shuffled)
    again = stratified_folds(shuffled, [samples[name] for name in shuffled], folds=folds, seed=1)
    assert dict(zip(shuffled, again, strict=True)) == fold_of
    for members in ([n for n in samples if target in ("all", samples[n])] for target in ("all", 0, 1, 2, 3)):
        sizes = Counter(fold_of[name] for name in members)
        assert max(sizes.values(), default=0) - min(sizes[fold] for fold in range(folds)) <= 1
    for target in set(samples.values()):  # so that whatever is held out, something is left to learn from
        assert len({fold_of[name] for name in samples if samples[name] == target}) > 1


# Groups

# The group of each sample and its class: groups of very unequal sizes, most of them mainly of one class.
groups_and_targets = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 4), st.integers(1, 40), st.integers(0, 3)),
    min_size=2,
    max_size=40,
).map(
    lambda runs: [
        (f"group {group}", (target + (i % 5 == 4) * other) % 5)
        for group, target, size, other in runs
        for i in range(size)
    ]
)


def sides(samples, flags):
    """Return the parts that the samples of each group, and those of each class, are in."""
    by_group, by_class = defaultdict(set), defaultdict(set)
    for (group, target), flag in zip(samples, flags, strict=True):
        by_group[group].add(flag)
        by_class[target].add(flag)
    return by_group, by_class


@given(groups_and_targets, st.sampled_from([0.05, 0.2, 0.5, 0.8]), st.integers(0, 9), st.randoms())
@settings(max_examples=60, deadline=None)
def test_no_group_is_on_both_sides_and_every_class_is_trained_on(samples, fraction, seed, random):
    flags = grouped_split(*zip(*samples, strict=True), fraction=fraction, seed=seed)
    by_group, by_class = sides(samples, flags)
    assert all(len(parts) == 1 for parts in by_group.values())
    assert all(False in parts for parts in by_class.values())
    random.shuffle(samples)
    again = grouped_split(*zip(*samples, strict=True), fraction=fraction, seed=seed)
    assert sides(samples, again)[0] == by_group


@given(groups_and_targets, st.integers(2, 8), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_folds_by_group_are_a_partition_of_the_groups(samples, folds, seed):
    fold_of = grouped_folds(*zip(*samples, strict=True), folds=folds, seed=seed)
    assert set(fold_of) <= set(range(folds))
    by_group, _ = sides(samples, fold_of)
    assert all(len(parts) == 1 for parts in by_group.values())


def distance(samples, held_out, fraction):
    """Return the squared distances of the shares of every class, and of all, from the fraction."""
    squared = 0.0
    for target in {*(target for _, target in samples), None}:
        members = [group for group, of_class in samples if target in (None, of_class)]
        share = sum(group in held_out for group in members) / len(members)
        squared += (share - fraction) ** 2 + (share == 0) + 100 * (share == 1)
    return squared


def test_few_groups_are_split_about_as_well_as_they_can_be():
    """Of 40 random structures at most 1 is not split in the best of all ways."""
    missed = 0
    for number in range(40):
        sizes = [(number * 7 + i * i * 3) % 23 + 1 for i in range(8)]
        samples = [
            (f"g{i}", (i + (k % 4 == 3) * (number % 3)) % 3)
            for i, size in enumerate(sizes)
            for k in range(size)
        ]
        names = sorted({group for group, _ in samples})
        every = (
            {name for name, chosen in zip(names, choice, strict=True) if chosen}
            for choice in itertools.product((False, True), repeat=len(names))
        )
        best = min(distance(samples, held_out, 0.25) for held_out in every)
        flags = grouped_split(*zip(*samples, strict=True), fraction=0.25, seed=number)
        ours = {group for (group, _), flag in zip(samples, flags, strict=True) if flag}
        missed += distance(samples, ours, 0.25) > best + 1e-9
    assert missed <= 1


def test_many_equal_groups_give_exact_shares():
    samples = [(f"g{i}", i % 3) for i in range(300) for _ in range(4)]
    flags = grouped_split(*zip(*samples, strict=True), fraction=0.2, seed=1)
    held = Counter(target for (_, target), flag in zip(samples, flags, strict=True) if flag)
    assert held == {0: 80, 1: 80, 2: 80}
    fold_of = grouped_folds(*zip(*samples, strict=True), folds=5, seed=1)
    counts = Counter((fold, target) for fold, (_, target) in zip(fold_of, samples, strict=True))
    assert set(counts.values()) == {80}


def test_the_seed_decides_which_groups_are_held_out():
    samples = [(f"g{i}", i % 3) for i in range(60) for _ in range(i % 7 + 1)]
    splits = {tuple(grouped_split(*zip(*samples, strict=True), fraction=0.2, seed=seed)) for seed in range(5)}
    assert len(splits) == 5


def test_a_class_of_one_group_is_left_to_train_on():
    samples = [("only", 0)] * 5 + [(f"g{i}", 1) for i in range(10)]
    flags = grouped_split(*zip(*samples, strict=True), fraction=0.9, seed=1)
    assert not any(flags[:5])
    assert any(flags[5:])
