"""Which epoch's model is the best one, and when it is saved."""

import pytest
import torch
from torch import nn

from finetune.runs import Run
from finetune.runs.recorder import RunRecorder
from finetune.task import SingleLabel
from finetune.training.events import Epoch

TARGETS = torch.tensor([0, 1, 0, 1])
SCORE = SingleLabel.score


def logits(right, sure):
    """Return the logits of four images: how many are right, and by how much the right class leads there."""
    lead = torch.where(torch.arange(4) < right, sure, -1.0)
    return nn.functional.one_hot(TARGETS, 2) * lead[:, None]


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def record(directory, *epochs, monitor="val_accuracy"):
    """Record epochs of (images that are right, how sure they are); return the record."""
    recorder = RunRecorder(Run(directory), monitor=monitor, description={}, epochs={"a": len(epochs)})
    recorder.start_stage("a", [])
    model = nn.Linear(1, 1)
    for number, (right, sure) in enumerate(epochs):
        values = logits(right, sure)
        nn.init.constant_(model.weight, number + 1)
        epoch = Epoch(number, 1.0, values, TARGETS, seconds=1.0, images_per_second=1.0)
        recorder.add_epoch("a", epoch, SingleLabel().score(values, TARGETS, ("x", "y")), model)
    return recorder


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(2, 1.0), (3, 1.0), (2, 5.0)], 2),  # accuracy goes before loss
        ([(4, 0.5), (4, 3.0), (4, 2.0)], 2),  # of equal accuracies the lowest loss
        ([(4, 3.0), (4, 3.0)], 1),  # of equals in both the first
        ([(3, 3.0), (4, 0.5), (4, 3.0), (4, 1.0)], 3),
    ],
)
def test_the_best_epoch_is_that_of_the_highest_score_then_of_the_lowest_loss(directory, epochs, best):
    recorder = record(directory, *epochs)
    assert recorder.best.epoch == best
    assert recorder.best_weights["weight"].item() == best
    recorder.flush()
    saved, _ = Run(directory).load_model()
    assert saved["weight"].item() == best


def test_where_the_loss_is_monitored_accuracy_says_nothing(directory):
    assert record(directory, (4, 0.1), (3, 9.0), (4, 0.1), monitor="val_loss").best.epoch == 2


@pytest.mark.parametrize(("epoch_seconds", "saved_at_once"), [(0.1, False), (60.0, True)])
def test_a_model_is_saved_at_once_unless_epochs_are_shorter_than_that_takes(
    directory, monkeypatch, epoch_seconds, saved_at_once
):
    now = 0.0
    save_model = Run.save_model

    def save_in_a_second(*arguments):
        nonlocal now
        now += 1.0
        save_model(*arguments)

    def judged(*arguments, **settings):
        nonlocal now
        now += epoch_seconds
        return SCORE(*arguments, **settings)

    monkeypatch.setattr("finetune.runs.recorder.time.perf_counter", lambda: now)
    monkeypatch.setattr(Run, "save_model", save_in_a_second)
    monkeypatch.setattr(SingleLabel, "score", judged)
    recorder = record(directory, (1, 1.0), (2, 1.0), (3, 1.0))
    assert Run(directory).load_model()[0]["weight"].item() == (3 if saved_at_once else 1)
    recorder.state()  # what a checkpoint holds
    saved, description = Run(directory).load_model()
    assert (saved["weight"].item(), description["best"]["epoch"]) == (3, 3)
