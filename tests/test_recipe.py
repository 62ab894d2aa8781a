"""What changes a training step or what is kept of it: with every kind of data, resumed, and in a search."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import run_finetune, some_quick, write_small_config
from run_result import result_of
from several import draw_several
from test_lr_search import FAST, prepare
from test_resume import CONFIG, as_if_killed_at, reseal

from finetune.config.load import load_config
from finetune.experiment.loaders import build_loaders
from finetune.experiment.lr_search import build_trial
from finetune.runs.checksummed import load_checksummed

PARTS = {
    "accumulate": ("data.batch_size=4", "data.accumulate=2"),
    "mixup": ("data.mixup=0.2",),
    "cutmix": ("data.cutmix=1",),
    "mixup or cutmix": ("data.mixup=1", "data.cutmix=1", "loss.label_smoothing=0.1"),
    "ema": ("ema=0.9",),
}
"""The keys that turn on each part of the recipe."""

SEPARATED = 'data.label_separator=";"'
SHORT = ("stages.frozen.epochs=1", "stages.unfrozen.lr=slice(1e-4, 1e-2)")


# Both ways of mixing together go where each of them does.
ALONE = ("mixup", "cutmix")


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in ALONE)) for name in PARTS])
def part(request):
    return PARTS[request.param]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Return the table of 64 images of up to three colours, each 0 or 1 in a column too."""
    return draw_several(tmp_path_factory.mktemp("several"))


def config_of(folder, path):
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(path=path))
    return file


def train(config, run, *keys):
    result = run_finetune("train", config, "--run-dir", run, *keys)
    assert result.exit_code == 0, result.output
    return json.loads((run / "report.json").read_text())


@pytest.mark.parametrize("data", ["one label", pytest.param("several labels", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(part, data, images, several, tmp_path):
    config = config_of(tmp_path, images if data == "one label" else several)
    whole = tmp_path / "whole"
    train(config, whole, *part, *SHORT, *([] if data == "one label" else [SEPARATED]))
    names = sorted(os.listdir(whole / "checkpoints"))
    in_last_stage = [name for name in names if name.startswith("01-000001")]
    for name in (names[0], in_last_stage[1]):
        as_if_killed_at(name, whole, tmp_path / name)
        result = run_finetune("train", "--resume", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert result_of(tmp_path / name) == result_of(whole)


_KILLING = """
import os, signal, sys
from finetune.runs.checkpointer import Checkpointer
from finetune.__main__ import main

write, calls = Checkpointer._write, 0

def write_and_die(self, reached):
    global calls
    write(self, reached)
    calls += 1
    if calls == {after}:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpointer._write = write_and_die
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 7])
def test_a_process_that_is_killed_is_resumed_bit_for_bit(after, images, tmp_path):
    """All parts of the recipe that go together."""
    keys = [key for keys in PARTS.values() for key in keys]
    config = config_of(tmp_path, images)
    train(config, tmp_path / "whole", *keys, *SHORT)
    arguments = ["train", str(config), "--run-dir", str(tmp_path / "run"), *keys, *SHORT]
    program = [sys.executable, "-c", _KILLING.format(after=after), *arguments]
    killed = subprocess.run(program, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    result = run_finetune("train", "--resume", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")


@pytest.mark.parametrize("balance", some_quick(["loss", "sampler"], "loss"))
def test_it_learns_with_balanced_classes(part, balance, images, tmp_path):
    config = write_small_config(tmp_path, images)
    keys = (f"data.balance={balance}", "stages.frozen.epochs=6")
    assert train(config, tmp_path / "run", *part, *keys)["val"]["accuracy"] > 0.6


@pytest.mark.slow
def test_it_learns_several_labels_with_weights(part, several, tmp_path):
    config = write_small_config(tmp_path, several)
    keys = (SEPARATED, "data.balance=loss", "stages.frozen.epochs=4")
    assert train(config, tmp_path / "run", *part, *keys)["val"]["map"] > 0.7


@pytest.mark.slow
def test_a_rate_is_found_with_it(part, images, tmp_path):
    config = write_small_config(tmp_path, images)
    keys = (*part, "stages.frozen.lr=auto", *FAST)
    report = train(config, tmp_path / "run", *keys)
    assert report["epochs"] == 3
    found = json.loads((tmp_path / "run" / "lr_find-frozen.json").read_text())
    assert found["lr"] > 0


@pytest.mark.parametrize("number", some_quick([0, 1], 1), ids=["frozen", "unfrozen"])
def test_a_trial_takes_the_steps_of_a_stage(part, number, images, tmp_path):
    """So that a rate is found for the training that follows."""
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    whole = f"stages=[{{name: only, train: {['head', 'all'][number]}, epochs: 2, lr: 0.01}}]"
    train(config, run, *part, whole, "data.augment=none", "model.head.dropout=0")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    experiment = prepare(load_config(config, [*part, whole, "data.augment=none", "model.head.dropout=0"]))
    trial = build_trial(experiment, 0, build_loaders(experiment), len(steps))
    tried = list(trial.steps([(step["lrs"][-1], step["momentum"]) for step in steps]))
    if trial.module is experiment.model:
        assert tried == [step["loss"] for step in steps]
    else:  # over cached features the batches are others, and as large
        assert len(trial.train) == len(build_loaders(experiment).train)


# Accumulation


STILL = (
    *("data.augment=none", "model.head.hidden=[]", "model.head.dropout=0"),
    "stages=[{name: all, train: all, epochs: 2, lr: 0.01, batch_norm: still}]",
)


def steps_of(run):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "step"]


def test_accumulated_batches_are_one_large_batch(images, tmp_path):
    """Where no layer looks at a whole batch: batch norm stands still, and the head has none."""
    config = write_small_config(tmp_path, images)
    runs = {"whole": ("data.batch_size=12",), "parts": ("data.batch_size=3", "data.accumulate=4")}
    for name, keys in runs.items():
        train(config, tmp_path / name, *keys, *STILL)
    whole, parts = (steps_of(tmp_path / name) for name in runs)
    assert len(whole) == len(parts) == 4
    for one, other in zip(whole, parts, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["images"] == one["images"] == 12
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        assert other["lrs"] == one["lrs"]


def test_one_batch_at_a_time_goes_through_the_network(images, tmp_path, monkeypatch):
    config = load_config(
        write_small_config(tmp_path, images), ["data.batch_size=4", "data.accumulate=3", *STILL]
    )
    experiment = prepare(config)
    sizes = []
    experiment.model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    trial = build_trial(experiment, 0, build_loaders(experiment), 2)
    assert len(list(trial.steps([(1e-3, 0.9)] * 2))) == 2
    assert sizes == [4] * 6


def test_more_than_the_images_is_lowered_and_said(images, tmp_path):
    config = write_small_config(tmp_path, images)  # 30 images to train on
    expected = {
        ("data.accumulate=5",): "5 batches of 8 are more than the 30 training images; using 3",
        ("data.batch_size=50", "data.accumulate=2"): "using 30, one batch to a step",
    }
    for keys, message in expected.items():
        for command in ("check", "train"):
            result = run_finetune(command, config, *keys, *(["--dry-run"] if command == "train" else []))
            assert result.exit_code == 0, result.output
            assert message in " ".join(result.output.split())
    steps = run_finetune("train", config, "data.accumulate=5", "--dry-run").stdout
    assert "1 step an epoch" in steps


def test_commands_say_what_a_step_has(images, tmp_path):
    config = write_small_config(tmp_path, images)
    for command in (("check",), ("train", "--dry-run")):
        result = run_finetune(*command, config, "data.batch_size=5", "data.accumulate=2")
        assert "\nstep    2 batches of 5: 10 images\n" in result.stdout
        assert " batches of 8: " not in run_finetune(*command, config).stdout


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *(("data.accumulate", value, "expected a") for value in ("0", "true", "1.5", "65537")),
        *(("ema", value, "expected a number") for value in ("0", "1", "true", "-0.5")),
    ],
)
def test_a_value_out_of_its_range_is_refused(key, value, expected, images, tmp_path):
    result = run_finetune("train", write_small_config(tmp_path, images), f"{key}={value}")
    assert result.exit_code == 2
    assert f"{key}: {expected}" in result.stderr


def test_metadata_goes_in_parts_with_its_images(several, tmp_path):
    config = write_small_config(tmp_path, several)
    keys = (SEPARATED, "data.columns.metadata={red: number}", "stages.frozen.epochs=6")
    report = train(config, tmp_path / "run", *PARTS["accumulate"], *keys)
    assert report["val"]["map"] > 0.8


# Mixing


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("loss.name=focal",), "loss: focal goes by the probability of what is right, and of mixed images"),
        (
            ("data.columns.metadata={red: number}", SEPARATED),
            "data.columns.metadata (red) says nothing",
        ),
        (("data.mixup=0.001", "data.cutmix=0.001"), "expected 0 for none, or a number of at least 0.01"),
        (("data.mixup=-1", "data.cutmix=-1"), "expected a number of at least 0, got -1"),
        (("data.mixup=11", "data.cutmix=11"), "expected a number of at most 10, got 11"),
    ],
)
@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_what_cannot_be_mixed_is_a_mistake_of_the_config(key, keys, message, several, tmp_path):
    config = write_small_config(tmp_path, several)
    for command in (("train", config, "--run-dir", tmp_path / "run"), ("check", config)):
        result = run_finetune(*command, f"data.{key}=1", *keys)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", some_quick(["null", "0"], "0"))
def test_mixing_nothing_is_the_training_without_it(value, images, tmp_path):
    config = write_small_config(tmp_path, images)
    train(config, tmp_path / "plain", "loss.name=focal")
    train(config, tmp_path / "off", "loss.name=focal", f"data.mixup={value}", f"data.cutmix={value}")
    plain, off = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "off"))
    assert plain == off


def test_commands_say_how_images_are_mixed(images, tmp_path):
    config = write_small_config(tmp_path, images)
    lines = {
        ("data.mixup=0.2",): "mix     mixup 0.2",
        ("data.cutmix=1",): "mix     cutmix 1",
        ("data.mixup=0.2", "data.cutmix=1"): "mix     mixup 0.2 or cutmix 1, one of them for each batch",
    }
    for keys, line in lines.items():
        assert f"\n{line}\n" in run_finetune("train", config, "--dry-run", *keys).stdout
    assert f"\n{line}\n" in run_finetune("check", config, *keys).stdout


def test_a_frozen_search_goes_through_the_network_where_images_are_mixed(images, tmp_path):
    """Features of a mixture are no mixture of features."""
    experiment = prepare(load_config(write_small_config(tmp_path, images), ["data.mixup=0.2"]))
    assert build_trial(experiment, 0, build_loaders(experiment), 5).module is experiment.model


def test_the_diagnosis_knows_that_mixtures_cannot_be_learned_to_the_end(images, tmp_path):
    config = write_small_config(tmp_path, images)
    keys = ("data.mixup=1", "stages.frozen.epochs=4", "stages.unfrozen.epochs=12", "data.augment=none")
    report = train(config, tmp_path / "run", *keys)
    assert report["val"]["accuracy"] == 1
    assert {finding["trouble"] for finding in report["diagnosis"]} <= {"still improving"}


# Averaged weights


def checkpoints_of(run):
    """Return the tensors of each checkpoint by its stage, epoch and batch."""
    found = {}
    for path in sorted((run / "checkpoints").glob("*.safetensors")):
        found[tuple(map(int, path.stem.split("-")))] = load_checksummed(path)[0]
    return found


def parts_of(tensors, kind):
    return {name.removeprefix(kind): t for name, t in tensors.items() if name.startswith(kind)}


@pytest.fixture(scope="module")
def averaged(images, tmp_path_factory):
    """Return a run with averaged weights whose second rate was found, and its like without them."""
    folder = tmp_path_factory.mktemp("averaged")
    config = config_of(folder, images)
    train(config, folder / "with", "ema=0.9", "monitor=val_loss")
    train(config, folder / "without", "monitor=val_loss")
    return folder / "with", folder / "without"


def test_without_ema_a_checkpoint_holds_no_average(averaged):
    run, plain = map(checkpoints_of, averaged)
    assert run.keys() == plain.keys()
    kinds = {name.split(".")[0] for tensors in plain.values() for name in tensors}
    assert kinds == {"model", "optimizer"}
    assert any(parts_of(tensors, "average.") for tensors in run.values())


def test_the_average_is_of_what_moves_alone(averaged):
    run = checkpoints_of(averaged[0])
    head, whole = (parts_of(run[where], "average.") for where in ((0, 1, 1), (1, 1, 1)))
    assert {name.split(".")[0] for name in head} == {"head"}
    assert any(name.endswith("running_mean") for name in head)
    assert head.keys() < whole.keys()
    assert "head.layers.2.weight" in head


def test_a_frozen_backbone_stays_as_it_is_to_the_last_bit(averaged):
    run = checkpoints_of(averaged[0])
    first, last = (parts_of(run[where], "model.backbone.") for where in ((0, 0, 1), (0, 2, 0)))
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)


def test_a_stage_ends_with_the_average_and_the_next_one_starts_from_it(averaged):
    run = checkpoints_of(averaged[0])
    average = parts_of(run[0, 2, 0], "average.")
    for where in ((0, 2, 0), (1, 0, 0)):  # the end of the frozen stage, and a rate found for the next one
        model = parts_of(run[where], "model.")
        assert all(torch.equal(model[name], average[name]) for name in average)
    within, other = run[0, 1, 1], parts_of(run[0, 1, 1], "average.")
    assert not torch.equal(within["model.head.layers.2.weight"], other["head.layers.2.weight"])


def test_the_scores_of_a_run_are_those_of_the_averages(averaged):
    run, plain = averaged
    report = json.loads((run / "report.json").read_text())
    evaluated = json.loads(run_finetune("evaluate", run, "--json").stdout)
    del evaluated["confidence"]
    assert evaluated == report["val"]
    losses = [[event["loss"] for event in steps_of(one) if event["stage"] == "frozen"] for one in averaged]
    assert losses[0] == losses[1]  # the steps do not notice
    histories = [(one / "history.csv").read_text().splitlines()[1].split(",") for one in (run, plain)]
    assert histories[0][2] == histories[1][2]
    assert histories[0][3] != histories[1][3]


def test_commands_say_that_weights_are_averaged(images, tmp_path):
    config = write_small_config(tmp_path, images)
    for command in (("check",), ("train", "--dry-run")):
        result = run_finetune(*command, config, "ema=0.99")
        assert "\nema     averaged weights are validated and kept, decay 0.99\n" in result.stdout


def test_an_average_that_is_left_out_of_a_checkpoint_is_missed(averaged, tmp_path):
    """Guard the tests above, and those of resuming."""
    run, name = averaged[0], "01-000001-000000002.safetensors"

    def without_average(tensors, state):
        for one in [one for one in tensors if one.startswith("average.")]:
            del tensors[one]

    as_if_killed_at(name, run, tmp_path / "run")
    reseal(tmp_path / "run" / "checkpoints" / name, without_average)
    assert run_finetune("train", "--resume", tmp_path / "run").exit_code == 0
    assert result_of(tmp_path / "run")["last weights"] != result_of(run)["last weights"]


@pytest.mark.slow
def test_a_stage_that_stopped_early_ends_with_the_average_too(images, tmp_path):
    config, whole = config_of(tmp_path, images), tmp_path / "whole"
    rules = ("early_stopping.patience=1", "early_stopping.min_delta=1", "stages.frozen.epochs=5")
    train(config, whole, "ema=0.9", "stages.unfrozen.lr=1e-3", *rules)
    names = sorted(os.listdir(whole / "checkpoints"))
    last = [name for name in names if name.startswith("00-") and name.endswith("-000000000.safetensors")][-1]
    assert last < "00-000005"
    tensors = checkpoints_of(whole)[tuple(map(int, last.split(".")[0].split("-")))]
    average, model = parts_of(tensors, "average."), parts_of(tensors, "model.")
    assert all(torch.equal(model[name], average[name]) for name in average)
    as_if_killed_at(last, whole, tmp_path / "run")
    assert run_finetune("train", "--resume", tmp_path / "run").exit_code == 0
    assert result_of(tmp_path / "run") == result_of(whole)
