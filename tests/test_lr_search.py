"""Finding a rate: what it sweeps, that it leaves no trace, and that the found number repeats the training."""

import json
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import draw_images, run_finetune, write_small_config

from finetune.config.load import load_config
from finetune.experiment import lr_search
from finetune.experiment.build import build_experiment
from finetune.experiment.loaders import build_loaders
from finetune.experiment.lr_search import build_trial, find_lr
from finetune.experiment.read_data import read_data
from finetune.lr_finder.heuristics import ORDER
from finetune.lr_finder.race import Candidate
from finetune.task.losses import ClassificationLoss

# The three classes differ in colour by far more than their noise, so that some rate learns them in six steps
# whatever the processor; and the sweep goes on to its end, where a rate of 10 destroys any model, so that
# there is always something to race.
FAST = ("lr_finder.steps=30", "lr_finder.race_steps=6", "lr_finder.start=1e-5", "lr_finder.stop=1e9")


def prepare(config):
    return build_experiment(config, torch.device("cpu"), read_data(config))


def experiment_of(folder, path, *overrides):
    config = load_config(write_small_config(folder, path), [*FAST, *overrides])
    return prepare(config)


def everything(model):
    """Return all that a search may touch: tensors, gradients, modes, random states."""
    return {
        **{f"tensor {name}": t.clone() for name, t in [*model.named_parameters(), *model.named_buffers()]},
        **{f"grad {name}": p.grad for name, p in model.named_parameters()},
        **{f"mode {name}": layer.training for name, layer in model.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name]
        assert same, name


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [0, 1], ids=["frozen", "unfrozen"])
def test_a_search_leaves_no_trace(images, tmp_path, number, workers):
    experiment = experiment_of(tmp_path, images, f"data.workers={workers}")
    experiment.model.train()
    loaders = build_loaders(experiment)
    before = everything(experiment.model)
    found = find_lr(experiment, number, loaders)
    assert len(found.curve.lrs) > 10
    assert_same(before, everything(experiment.model))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("number", [0, 1], ids=["frozen", "unfrozen"])
def test_a_search_that_is_broken_off_leaves_no_trace(images, tmp_path, monkeypatch, number, error):
    experiment = experiment_of(tmp_path, images)
    loaders = build_loaders(experiment)
    before = everything(experiment.model)
    taken = 0

    def break_off(self, *args, **kwargs):
        nonlocal taken
        taken += 1
        if taken == 17:
            raise error

    monkeypatch.setattr(ClassificationLoss, "forward", breaking(ClassificationLoss.forward, break_off))
    with pytest.raises(error):
        find_lr(experiment, number, loaders)
    assert taken == 17
    assert_same(before, everything(experiment.model))


def breaking(function, first):
    def wrapped(self, *args):
        first(self, *args)
        return function(self, *args)

    return wrapped


def test_without_putting_back_the_trace_would_be_seen(images, tmp_path):
    """Guard the tests above: the same steps outside a search change weights and statistics."""
    experiment = experiment_of(tmp_path, images)
    torch.manual_seed(0)  # whatever another test has left could be what the steps leave
    before = everything(experiment.model)
    trial = build_trial(experiment, 1, build_loaders(experiment), 5)
    for _ in trial.steps([(1e-2, 0.9)] * 3):
        pass
    after = everything(experiment.model)
    tensors = [name for name in before if name.startswith("tensor ")]
    moved = {name for name in tensors if not torch.equal(before[name], after[name])}
    assert any("running_mean" in name for name in moved)
    assert any("head.layers" in name for name in moved)
    assert not torch.equal(before["torch"], after["torch"])


@pytest.mark.parametrize("train", ["head", "all"])
def test_a_trial_takes_the_steps_of_a_stage_that_clips_gradients(images, tmp_path, train):
    stages = f"stages=[{{name: one, train: {train}, epochs: 2, lr: 1}}]"
    settings = [stages, "optimizer.name=sgd", "data.augment=none", "model.head.dropout=0"]
    clipping = "optimizer.clip_norm=0.1"
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    assert run_finetune("train", config, "--run-dir", run, *settings, clipping).exit_code == 0
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert all(0 < step["clip"] <= 1 for step in steps)
    assert sum(step["clip"] < 1 for step in steps) > 2

    def losses(*overrides):
        experiment = prepare(load_config(config, [*settings, *overrides]))
        trial = build_trial(experiment, 0, build_loaders(experiment), 3)
        return list(trial.steps([(step["lrs"][-1], None) for step in steps]))

    told = [step["loss"] for step in steps]
    if train == "all":
        assert losses(clipping) == told
        assert losses() != pytest.approx(told, rel=1e-2)
    else:  # over cached features the batches are others than in the stage
        assert losses(clipping) != losses()


def weights_of(run):
    return (run / "model.safetensors").read_bytes()


AUTO = (
    "stages=[{name: frozen, train: head, epochs: 1, lr: auto},"
    " {name: unfrozen, train: all, epochs: 1, lr: 'slice(auto/100, auto)'}]"
)


@pytest.fixture(scope="module")
def auto_run(images, tmp_path_factory):
    """Return a finished run whose two stages found their own rates."""
    folder = tmp_path_factory.mktemp("auto")
    config = write_small_config(folder, images)
    result = run_finetune("train", config, "--run-dir", folder / "run", AUTO, *FAST)
    assert result.exit_code == 0, result.output
    return folder / "run", result.stdout


def found_rates(run):
    return [stage.lr.written for stage in load_config(run / "config.yaml").stages]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_training_at_the_found_number_gives_the_same_bits(auto_run, images, tmp_path, workers):
    run, _ = auto_run
    frozen, unfrozen = found_rates(run)
    assert isinstance(frozen, float)
    assert unfrozen.startswith("slice(")
    stages = (
        f"stages=[{{name: frozen, train: head, epochs: 1, lr: {frozen}}},"
        f" {{name: unfrozen, train: all, epochs: 1, lr: '{unfrozen}'}}]"
    )
    again = tmp_path / "again"
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "--run-dir", again, stages, f"data.workers={workers}")
    assert result.exit_code == 0, result.output
    assert weights_of(again) == weights_of(run)


def test_the_resolved_config_repeats_the_run_without_a_search(auto_run, tmp_path):
    run, _ = auto_run
    result = run_finetune("train", run / "config.yaml", "--run-dir", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert weights_of(tmp_path / "again") == weights_of(run)
    assert not list((tmp_path / "again").glob("lr_find-*"))


def test_a_run_records_what_it_found(auto_run):
    run, output = auto_run
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    searches = [event for event in events if event["event"] == "lr_find"]
    assert [event["stage"] for event in searches] == ["frozen", "unfrozen"]
    for stage, event in zip(("frozen", "unfrozen"), searches, strict=True):
        record = json.loads((run / f"lr_find-{stage}.json").read_text())
        assert record["lr"] == event["lr"]
        assert len(record["curve"]["lr"]) == len(record["curve"]["loss"]) == len(record["curve"]["smoothed"])
        assert [suggestion["heuristic"] for suggestion in record["suggestions"]] == list(ORDER)
        assert (run / f"lr_find-{stage}.png").read_bytes().startswith(b"\x89PNG")
    assert record["weights"]["trained_stages"] == ["frozen"]
    assert "picked" in output
    frozen, unfrozen = found_rates(run)
    assert searches[0]["lr"] == frozen
    first, last = map(float, unfrozen.removeprefix("slice(").removesuffix(")").split(","))
    assert last == searches[1]["lr"]
    assert first == pytest.approx(last / 100, rel=1e-2)


def test_the_groups_of_a_slice_keep_their_ratios_in_the_sweep(images, tmp_path, monkeypatch):
    experiment = experiment_of(tmp_path, images)
    seen = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        seen.append([group["lr"] for group in self.param_groups])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    find_lr(experiment, 1, build_loaders(experiment))
    sweep = seen[:20]
    for rates, after in pairwise(sweep):
        assert rates[-1] / rates[0] == pytest.approx(100)  # slice(1e-4, 1e-2)
        assert rates[-1] / rates[2] == pytest.approx(10)
        assert after[-1] > rates[-1]
    assert sweep[0][-1] == pytest.approx(1e-5)


def test_features_give_the_losses_that_the_whole_model_gives(images, tmp_path):
    experiment = experiment_of(tmp_path, images, "data.augment=none", "model.head.dropout=0.0")
    loaders = build_loaders(experiment)
    cached = build_trial(experiment, 0, loaders, 20)
    assert cached.module is experiment.model.head
    whole = replace(cached, module=experiment.model, train=loaders.train, val=loaders.val)
    course = [(1e-3, 0.9)] * 3  # the epoch whose batches were cached, in their order
    state = {name: tensor.clone() for name, tensor in experiment.model.state_dict().items()}
    by_features = list(cached.steps(course))
    experiment.model.load_state_dict(state)
    assert by_features == list(whole.steps(course))
    logits, targets = cached.validate()
    expected, expected_targets = whole.validate()
    assert torch.equal(targets, expected_targets)
    torch.testing.assert_close(logits, expected)


def test_a_frozen_search_looks_at_each_image_once(images, tmp_path, monkeypatch):
    experiment = experiment_of(tmp_path, images)
    seen = 0
    forward = type(experiment.model.backbone).forward

    def counting(self, batch):
        nonlocal seen
        seen += len(batch) if self is experiment.model.backbone else 0
        return forward(self, batch)

    monkeypatch.setattr(type(experiment.model.backbone), "forward", counting)
    found = find_lr(experiment, 0, build_loaders(experiment))
    assert len(found.candidates) > 2
    assert seen == 24 + 6  # three full batches of 8 of the 30 training images, and 6 for validation


def test_batch_norm_that_trains_forbids_cached_features(images, tmp_path):
    stage = "stages=[{name: frozen, train: head, epochs: 1, lr: 1e-2, batch_norm: train}]"
    experiment = experiment_of(tmp_path, images, stage)
    assert build_trial(experiment, 0, build_loaders(experiment), 5).module is experiment.model


def test_a_rate_that_cannot_be_found_stops_the_training_and_is_recorded(images, tmp_path):
    config = write_small_config(tmp_path, images)
    flat = ("lr_finder.start=1e-12", "lr_finder.end=1e-10", "lr_finder.steps=30", "lr_finder.pick=valley")
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", AUTO, *flat)
    assert result.exit_code == 4
    assert "No usable rate for stage frozen: " in result.stderr
    assert "Traceback" not in result.output
    assert json.loads((tmp_path / "run" / "status.json").read_text())["exit_code"] == 4
    record = json.loads((tmp_path / "run" / "lr_find-frozen.json").read_text())
    assert record["lr"] is None
    assert all(suggestion["reason"] for suggestion in record["suggestions"])


def test_the_race_is_run_from_one_start_with_the_same_batches(images, tmp_path):
    experiment = experiment_of(tmp_path, images)
    found = find_lr(experiment, 0, build_loaders(experiment))
    again = find_lr(experiment, 0, build_loaders(experiment))
    assert found.candidates == again.candidates
    assert all(isinstance(racer, Candidate) for racer in found.candidates)
    assert found.lr in {float(f"{candidate.lr:.3g}") for candidate in found.candidates}


def test_the_report_shows_how_the_rates_were_found(auto_run):
    page = (auto_run[0] / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Learning rate of stage unfrozen" in page
    assert "swept from the model after stage frozen" in page


@pytest.mark.parametrize("changes", [(), ("data.balance=sampler",)], ids=["each once", "balanced"])
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
def test_a_search_on_features_of_the_evaluation_view_is_that_on_images_bit_for_bit(
    images, tmp_path, monkeypatch, changes, uneven
):
    """Also where it goes through the epoch many times: 30 images are three batches, and the sweep 31.

    Of uneven classes a balanced epoch shows one again and again, and leaves out more than a batch of others.
    """
    if uneven:
        images = draw_images(tmp_path / "uneven", classes=("cat", "dog"), each=28)
        for number in range(8, 28):
            (images / "dog" / f"dog{number:02}.png").unlink()
    experiment = experiment_of(tmp_path, images, "stages.frozen.views=eval", *changes)

    def search():
        found = find_lr(experiment, 0, build_loaders(experiment))
        return replace(found, seconds=0.0)

    on_features = search()
    monkeypatch.setattr(lr_search, "views_have_features", lambda *_: False)
    assert search() == on_features


def test_a_sweep_without_a_single_finite_loss_is_refused(images, tmp_path):
    config = write_small_config(tmp_path, images)
    stages = "stages=[{name: a, train: all, epochs: 2, lr: auto}]"
    how = "lr_finder={start: 1e5, end: 1e6}"
    for command in (("train", config, "--run-dir", tmp_path / "run"), ("lr-find", config)):
        result = run_finetune(*command, stages, how)
        assert result.exit_code == 4, result.output
        assert "the loss is not finite after the first steps of the range test, at 100000." in result.output
        assert "Set lr_finder.start lower, or write a rate." in result.output
