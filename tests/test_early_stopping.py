import csv
import json
import math

import pytest
from conftest import run_finetune, write_small_config

from finetune.optim.schedule import OneCycle
from finetune.training.early_stopping import EarlyStopping, find_stop

FALLING = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def a_rule(**changes):
    return EarlyStopping(
        **{"metric": "val_loss", "patience": 2, "min_delta": 0.0, "pct_start": 0.0, **changes}
    )


def stop_of(values, epochs=20, **changes):
    return find_stop("unfrozen", values, epochs, a_rule(**changes))


def first_stop(values, epochs=20, **changes):
    """Return the epoch after which a stage is over, as it is asked after each of its epochs."""
    for done in range(1, len(values) + 1):
        if stop_of(values[:done], epochs, **changes):
            return done
    return None


def test_a_stage_that_gains_goes_on():
    assert first_stop(FALLING) is None
    assert first_stop([1 - value for value in FALLING], metric="val_accuracy") is None


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_a_stage_ends_when_as_many_epochs_as_patience_brought_nothing(patience):
    losses = [0.9, 0.5, 0.6, 0.5, 0.7, 0.8]  # the same again is no gain
    assert first_stop(losses, patience=patience) == 2 + patience
    accuracies = [1 - loss for loss in losses]
    assert first_stop(accuracies, patience=patience, metric="val_accuracy") == 2 + patience


def test_each_metric_gains_in_its_own_direction():
    assert first_stop(FALLING, metric="val_accuracy") == 3
    assert first_stop(FALLING[::-1], metric="val_loss") == 3


def test_a_gain_starts_the_count_again():
    assert first_stop([0.9, 0.91, 0.8, 0.81, 0.7, 0.71, 0.72]) == 7


def test_min_delta_is_in_the_units_of_the_metric():
    slow = [0.90, 0.89, 0.88, 0.87, 0.86]
    assert first_stop(slow, min_delta=0.005) is None
    assert first_stop(slow, min_delta=0.05) == 3
    assert first_stop(slow, min_delta=0.015) is None  # small gains add up: 0.90 to 0.88 is one
    assert first_stop([1 - value for value in slow], min_delta=0.05, metric="val_accuracy") == 3


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy"])
def test_a_value_that_is_no_number_is_never_a_gain(metric):
    assert first_stop([0.5, math.nan, math.nan], metric=metric) == 3
    assert first_stop([math.nan, math.nan], metric=metric) == 2
    assert first_stop([math.nan, 0.5, math.nan, math.nan], metric=metric) == 4
    assert "val_loss was no finite number in 2 epochs" in str(stop_of([math.nan, math.nan]))
    assert "val_loss was no finite number in 1 epoch\n" in str(stop_of([math.nan], patience=1))
    assert stop_of([math.nan, math.nan]).stage == "unfrozen"


def test_epochs_in_which_the_rate_rises_are_not_counted():
    losses = [
        0.2,
        0.5,
        0.6,
        0.9,
        0.8,
        0.7,
        0.6,
        0.5,
        0.5,
        0.5,
    ]  # a good start, worse at the peak, better after it
    assert first_stop(losses) == 3
    assert first_stop(losses, epochs=16, pct_start=0.25) == 10  # the first that counts is the fourth
    stop = stop_of(losses, epochs=16, pct_start=0.25)
    assert (stop.best, stop.best_epoch) == (0.5, 8)


def test_the_last_epoch_of_a_stage_is_no_early_stop():
    assert stop_of([0.5, 0.6, 0.7], epochs=3) is None
    assert stop_of([0.5, 0.6, 0.7], epochs=4) is not None


def test_a_stop_says_what_did_not_gain_and_how_far_the_cycle_was():
    stop = stop_of([0.7, 0.5, 0.6, 0.55], epochs=8, pct_start=0.25, min_delta=0.01)
    assert str(stop).startswith(
        "stopped early, after epoch 4 of 8: "
        "val_loss was not below 0.5000 (epoch 2) by more than 0.01 in 2 epochs\n"
        "the rate was at 75% of its peak"
    )
    assert str(stop).endswith("epochs=4 makes a whole cycle of that length")


def test_the_rate_that_a_stop_names_is_that_of_the_schedule():
    cycle = OneCycle()
    for done in (6, 8, 13, 19):
        stop = stop_of([0.5] * done, epochs=20, pct_start=0.25, patience=1)
        assert stop.rate_share == pytest.approx(cycle.rate(done / 20, 1.0), abs=1e-4)


@pytest.fixture(scope="module")
def stopped_run(images, tmp_path_factory):
    """Return a run whose stages end early, because nothing can gain what is asked for; and its output."""
    folder = tmp_path_factory.mktemp("stopped")
    frozen = "{name: frozen, train: head, epochs: 8, lr: 1e-2}"
    stages = f"stages=[{frozen}, {{name: unfrozen, train: all, epochs: 1, lr: 1e-3}}]"
    stopping = ("early_stopping.patience=1", "early_stopping.min_delta=50", "early_stopping.metric=val_loss")
    result = run_finetune(
        "train", write_small_config(folder, images), "--run-dir", folder / "run", stages, *stopping
    )
    assert result.exit_code == 0, result.output
    return folder / "run", result.output


def test_the_next_stage_follows_one_that_stopped(stopped_run):
    run, output = stopped_run
    with open(run / "history.csv") as file:
        rows = [(row["stage"], row["epoch"]) for row in csv.DictReader(file)]
    assert rows == [("frozen", "1"), ("frozen", "2"), ("frozen", "3"), ("unfrozen", "1")]
    assert "stopped early, after epoch 3 of 8: val_loss was not below" in output


def test_a_run_says_that_and_why_it_stopped(stopped_run):
    run, _ = stopped_run
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (event,) = [event for event in events if event["event"] == "early_stop"]
    (stop,) = json.loads((run / "status.json").read_text())["early_stops"]
    assert event == {"event": "early_stop", **stop}
    assert (stop["stage"], stop["epoch"], stop["epochs"], stop["best_epoch"]) == ("frozen", 3, 8, 2)
    assert (stop["metric"], stop["patience"], stop["min_delta"]) == ("val_loss", 1, 50)


def test_a_stage_that_stops_has_been_trained_as_the_whole_would_have(stopped_run, images, tmp_path):
    run, _ = stopped_run
    stages = "stages=[{name: frozen, train: head, epochs: 8, lr: 1e-2}]"
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", stages)
    assert result.exit_code == 0, result.output

    def losses(path):
        with open(path / "history.csv") as file:
            return [(row["train_loss"], row["val_loss"]) for row in csv.DictReader(file)]

    assert losses(run)[:3] == losses(tmp_path / "run")[:3]
    assert json.loads((tmp_path / "run" / "status.json").read_text())["early_stops"] == []


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("patience=0", "early_stopping.patience: expected a number of at least 1, got 0"),
        ("patience=2.5", "early_stopping.patience: expected a whole number, got 2.5"),
        ("min_delta=-1e-3", "early_stopping.min_delta: expected a number of at least 0, got -1e-3"),
        ("min_delta=.nan", "early_stopping.min_delta: expected a"),
        ("metric=accuracy", "early_stopping.metric: expected one of val_accuracy, val_balanced_accuracy, "),
        ("patiance=3", "early_stopping.patiance: unknown key; did you mean 'patience'?"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(images, tmp_path, key, message):
    result = run_finetune("train", write_small_config(tmp_path, images), f"early_stopping.{key}")
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
