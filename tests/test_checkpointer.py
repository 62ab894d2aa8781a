"""When a checkpoint is due: numbers alone, no clock."""

import math

import pytest

from finetune.runs.checkpointer import CheckpointSchedule
from finetune.runs.recorder import SHARE


@pytest.mark.parametrize(
    ("moment", "seconds", "cost", "due"),
    [
        ("epoch", 0.0, 0.0, True),  # the first of a run
        ("epoch", 9.9, 0.2, False),
        ("epoch", 10.0, 0.2, True),
        ("step", 599.0, 0.2, False),
        ("step", 600.0, 100.0, True),
        ("val_batch", 599.0, 0.2, False),
        ("val_batch", 600.0, 100.0, True),
        ("epoch", 600.0, 100.0, True),
    ],
)
def test_an_epoch_is_saved_if_the_time_since_the_last_save_is_fifty_times_its_cost(
    moment, seconds, cost, due
):
    assert CheckpointSchedule(seconds=600).due(moment, seconds=seconds, steps=10**6, cost=cost) is due


def test_who_counts_steps_gets_every_epoch_too():
    schedule = CheckpointSchedule(steps=100)
    assert schedule.due("epoch", seconds=0, steps=0, cost=1e6)
    assert schedule.due("step", seconds=0, steps=100, cost=1e6)
    assert not schedule.due("step", seconds=1e6, steps=99, cost=0)


def test_without_an_interval_only_epochs_are_saved():
    assert not CheckpointSchedule().due("step", seconds=1e9, steps=10**9, cost=0)
    assert not CheckpointSchedule().due("val_batch", seconds=1e9, steps=10**9, cost=0)
    assert CheckpointSchedule().due("epoch", seconds=1e9, steps=10**9, cost=1)


@pytest.mark.parametrize("epoch_seconds", [0.01, 0.3, 3.0, 47.0, 60.0, 3600.0])
def test_checkpoints_between_epochs_take_no_more_than_their_share(epoch_seconds):
    cost, now, last, last_cost, spent, longest = 1.2, 0.0, 0.0, 0.0, 0.0, 0.0
    while now < 20_000:
        now += epoch_seconds
        if CheckpointSchedule(seconds=math.inf).due("epoch", seconds=now - last, steps=0, cost=last_cost):
            longest = max(longest, now - last)
            now += cost
            spent, last, last_cost = spent + cost, now, cost
    assert spent - cost <= SHARE * now  # but for the first, which is always written
    assert longest <= cost / SHARE + epoch_seconds
