"""Training that was stopped or killed, and goes on: bit for bit as if it had not been."""

import io
import json
import os
import pkgutil
import shutil
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import rewrite, run_finetune, some_quick
from run_result import result_of

from finetune.commands.prepare import prepare
from finetune.commands.train.resume import check_environment
from finetune.config.load import load_config
from finetune.display import Display
from finetune.optim.update_rules import UPDATE_RULES
from finetune.runs import Run
from finetune.runs.checkpointer import CheckpointSchedule
from finetune.runs.checksummed import dump_checksummed, load_checksummed
from finetune.training.state import restore_optimizer, training_tensors

# Dropout, augmentation, batch norm that moves, two stages, a validation split, a rate that is found.
CONFIG = """\
precision: float32
data: {{path: "{path}", image_size: 32, batch_size: 8, augment: standard, workers: 0}}
model: {{arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {{hidden: [16]}}}}
checkpoint: {{every: 1, keep: 1000}}
lr_finder: {{steps: 20, race_steps: 4, start: 1e-5}}
stages:
  - {{name: frozen, train: head, epochs: 2, lr: 1e-2}}
  - {{name: unfrozen, train: all, epochs: 2, lr: "slice(auto/100, auto)"}}
"""


# The same without a search for the rate, which takes as long as all the rest.
GIVEN_RATES = (
    "stages=[{name: frozen, train: head, epochs: 1, lr: 1e-2},"
    " {name: unfrozen, train: all, epochs: 2, lr: 'slice(1e-4, 1e-2)'}]"
)


@pytest.fixture(scope="module")
def config(images, tmp_path_factory):
    file = tmp_path_factory.mktemp("resume") / "small.yaml"
    file.write_text(CONFIG.format(path=images))
    return file


@pytest.fixture(scope="module")
def uninterrupted(config):
    run = config.parent / "uninterrupted"
    result = run_finetune("train", config, "--run-dir", run)
    assert result.exit_code == 0, result.output
    return run


@pytest.fixture(scope="module")
def uninterrupted_with_given_rates(config):
    run = config.parent / "given rates"
    result = run_finetune("train", config, GIVEN_RATES, "--run-dir", run)
    assert result.exit_code == 0, result.output
    return run


def as_if_killed_at(checkpoint, finished, run):
    """Make the directory of a run that was killed some time after it wrote a checkpoint."""
    shutil.copytree(finished, run)
    for path in (run / "checkpoints").glob("*.safetensors"):
        if path.name > checkpoint:
            path.unlink()
    (run / "report.json").unlink()
    status = json.loads((run / "status.json").read_text()) | {"state": "running"}
    (run / "status.json").write_text(json.dumps(status))


@pytest.mark.slow
def test_from_every_step_on_the_run_ends_as_if_it_had_never_stopped(uninterrupted, tmp_path):
    expected = result_of(uninterrupted)
    names = sorted(os.listdir(uninterrupted / "checkpoints"))
    # After each of 3 steps, the last of them before the validation, and after it; 4 epochs, and a rate found.
    assert len(names) == 4 * 4 + 1
    for name in names:
        run = tmp_path / name
        as_if_killed_at(name, uninterrupted, run)
        result = run_finetune("train", "--resume", run)
        assert result.exit_code == 0, result.output
        got = result_of(run)
        for what, value in expected.items():
            assert got[what] == value, (name, what)


MIDDLE = "01-000001-000000002.safetensors"


def reseal(path, change):
    """Change what a checkpoint holds, and seal it again."""
    tensors, text = load_checksummed(path)
    state = json.loads(text)
    change(tensors, state)
    path.write_bytes(dump_checksummed(tensors, json.dumps(state)))


def without_optimizer(tensors, state):
    for name in [name for name in tensors if name.startswith("optimizer.")]:
        del tensors[name]


def without_step_counts(tensors, state):
    for name in tensors:
        if name.endswith(".step"):
            tensors[name].zero_()


def without_moving_buffers(tensors, state):
    for name in tensors:
        if name.endswith("running_mean"):
            tensors[name].zero_()


def without_half_an_epoch(tensors, state):
    state["reached"] |= {"loss_sum": 0.0, "images_seen": 1}


def without_batches(tensors, state):
    state["reached"]["batch"] = 0


def without_history(tensors, state):
    recorder = state["recorder"]
    recorder["history"] = [row for row in recorder["history"] if row == recorder["best"]["row"]]


def without_best(tensors, state):
    state["recorder"]["best"] = None


def without_rates(tensors, state):
    state["lrs"][1] = "slice(auto/100, auto)"


def without_events(tensors, state):
    state["recorder"]["events_size"] = 0


@pytest.mark.parametrize(
    ("leave_out", "seen_in"),
    [
        (without_optimizer, "last weights"),
        pytest.param(without_step_counts, "last weights", marks=pytest.mark.slow),
        (without_moving_buffers, "last weights"),
        pytest.param(without_half_an_epoch, "history", marks=pytest.mark.slow),
        pytest.param(without_batches, "last weights", marks=pytest.mark.slow),
        pytest.param(without_history, "history", marks=pytest.mark.slow),
        (without_best, "report"),
        pytest.param(without_rates, "last weights", marks=pytest.mark.slow),
        (without_events, "events"),
    ],
)
def test_no_part_of_a_checkpoint_can_be_left_out(leave_out, seen_in, uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    reseal(run / "checkpoints" / MIDDLE, leave_out)
    assert run_finetune("train", "--resume", run).exit_code == 0
    assert result_of(run)[seen_in] != result_of(uninterrupted)[seen_in]


def saved_places(run):
    """Return stage, epochs and batches done of each checkpoint."""
    names = sorted(os.listdir(run / "checkpoints"))
    return [tuple(int(part) for part in name.removesuffix(".safetensors").split("-")) for name in names]


TWO_STAGES = (
    "stages=[{name: a, train: head, epochs: 4, lr: 1e-2}, {name: b, train: all, epochs: 3, lr: 1e-3}]"
)


def test_an_interval_counts_steps_and_no_validation_batches(config, tmp_path):
    stages = "stages=[{name: only, train: head, epochs: 2, lr: 1e-2}]"
    result = run_finetune("train", config, stages, "checkpoint.every=2", "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    # 3 steps and 2 validation batches an epoch; it counts anew after each checkpoint.
    assert saved_places(tmp_path / "run") == [(0, 0, 2), (0, 1, 0), (0, 1, 2), (0, 2, 0)]


@pytest.mark.slow
def test_checkpoints_between_epochs_are_left_out_where_they_cost_too_much(config, tmp_path, monkeypatch):
    whole, sparing = tmp_path / "whole", tmp_path / "sparing"
    assert run_finetune("train", config, TWO_STAGES, "--run-dir", whole).exit_code == 0
    monkeypatch.setattr(
        "finetune.commands.train.train.CheckpointSchedule", partial(CheckpointSchedule, share=1e-9)
    )
    often = "checkpoint.every=null"
    assert run_finetune("train", config, TWO_STAGES, often, "--run-dir", sparing).exit_code == 0
    assert saved_places(sparing) == [(0, 1, 0), (0, 4, 0), (1, 3, 0)]
    same = {what: value for what, value in result_of(whole).items() if what != "config"}
    assert {what: result_of(sparing)[what] for what in same} == same
    killed = tmp_path / "killed"
    as_if_killed_at("00-000001-000000000.safetensors", sparing, killed)
    assert run_finetune("train", "--resume", killed).exit_code == 0
    assert result_of(killed) == result_of(sparing)


def test_a_stage_that_stops_early_is_saved_whatever_it_costs(config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "finetune.commands.train.train.CheckpointSchedule", partial(CheckpointSchedule, share=1e-9)
    )
    rules = ("early_stopping.patience=1", "early_stopping.min_delta=1", "checkpoint.every=null")
    result = run_finetune("train", config, *rules, TWO_STAGES, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    rows = [row.split(",") for row in (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]]
    ends = [sum(row[0] == stage for row in rows) for stage in "ab"]
    assert ends[0] < 4
    assert {(0, ends[0], 0), (1, ends[1], 0)} <= set(saved_places(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(UPDATE_RULES))
def test_every_optimizer_goes_on_bit_for_bit(name, config, tmp_path):
    stages = f"stages=[{{name: all, train: all, epochs: 2, lr: {0.1 if name == 'adadelta' else 1e-3}}}]"
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = ("train", config, f"optimizer.name={name}", stages)
    assert run_finetune(*arguments, "--run-dir", whole).exit_code == 0
    as_if_killed_at("00-000001-000000001.safetensors", whole, run)
    assert run_finetune("train", "--resume", run).exit_code == 0
    assert result_of(run) == result_of(whole)


@pytest.mark.slow
def test_a_stage_that_stopped_early_stays_over(config, tmp_path):
    stages = (
        "stages=[{name: a, train: head, epochs: 5, lr: 1e-2}, {name: b, train: all, epochs: 2, lr: 1e-3}]"
    )
    whole = tmp_path / "whole"
    rules = ("early_stopping.patience=1", "early_stopping.min_delta=1", stages)
    assert run_finetune("train", config, *rules, "--run-dir", whole).exit_code == 0
    names = sorted(os.listdir(whole / "checkpoints"))
    assert "00-000003-000000000.safetensors" in names
    assert not any(name.startswith("00-000004") for name in names)
    for name in ("00-000002-000000002.safetensors", "00-000003-000000000.safetensors"):
        as_if_killed_at(name, whole, tmp_path / name)
        assert run_finetune("train", "--resume", tmp_path / name).exit_code == 0
        assert result_of(tmp_path / name) == result_of(whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_number_of_workers_may_change(workers, uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    result = run_finetune("train", "--resume", run, f"data.workers={workers}")
    assert result.exit_code == 0, result.output
    got = result_of(run)
    assert {k: v for k, v in got.items() if k != "config"} == {
        k: v for k, v in result_of(uninterrupted).items() if k != "config"
    }


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_over(uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at("", uninterrupted, run)
    shutil.rmtree(run / "checkpoints")
    result = run_finetune("train", "--resume", run)
    assert "from the beginning" in result.output
    assert result_of(run) == result_of(uninterrupted)


@pytest.mark.slow
def test_a_run_killed_while_it_wrote_its_beginning_starts_over(config, uninterrupted, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "classes.json", "split.csv", ".lock"):
        shutil.copy(uninterrupted / name, run)
    (run / ".files.csv.tmp").write_text("image,")
    result = run_finetune("train", config, "--run-dir", run, "--resume")
    assert result.exit_code == 0, result.output
    assert result_of(run) == result_of(uninterrupted)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    assert run_finetune("train", config, "--run-dir", tmp_path / "other", "--resume").exit_code == 8


def test_a_config_finds_its_newest_run(config, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stamp in ("small-20240101-000000", "small-20240101-000000-2", "other-20250101-000000"):
        as_if_killed_at(MIDDLE, uninterrupted, tmp_path / "runs" / stamp)
    result = run_finetune("train", config, "--resume")
    assert result.exit_code == 0, result.output
    assert "small-20240101-000000-2 from stage unfrozen" in result.output
    assert result_of(tmp_path / "runs" / "small-20240101-000000-2") == result_of(uninterrupted)


def test_without_a_run_resume_starts_one(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = "stages=[{name: only, train: head, epochs: 1, lr: 1e-2}]"
    first = run_finetune("train", config, short, "--resume", "--run-dir", "run")
    assert first.exit_code == 0
    assert "starting a new run" in first.output
    again = run_finetune("train", config, short, "--resume", "--run-dir", "run", "--json")
    assert again.exit_code == 0
    assert "finished; there is nothing left to do" in again.stderr
    assert json.loads(again.stdout)["epochs"] == 1


def test_a_finished_run_goes_on_with_more_stages(config, tmp_path):
    stage = "{{name: {}, train: all, epochs: 1, lr: 1e-3}}"
    one, two = (f"stages=[{', '.join(stage.format(name) for name in names)}]" for names in ("a", "ab"))
    whole, extended = tmp_path / "whole", tmp_path / "extended"
    assert run_finetune("train", config, two, "--run-dir", whole).exit_code == 0
    assert run_finetune("train", config, one, "--run-dir", extended).exit_code == 0
    result = run_finetune("train", config, two, "--run-dir", extended, "--resume")
    assert result.exit_code == 0, result.output
    ours, theirs = result_of(extended), result_of(whole)
    assert {k: v for k, v in ours.items() if k != "events"} == {
        k: v for k, v in theirs.items() if k != "events"
    }


def test_more_epochs_of_a_stage_are_another_training(config, uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    result = run_finetune("train", "--resume", run, "stages.1.epochs=3", "seed=1", "data.workers=1")
    assert result.exit_code == 5
    assert "stages.1.epochs: 2, now 3" in result.stderr
    assert "seed: 42, now 1" in result.stderr
    assert "workers" not in result.stderr
    assert "--force" in result.stderr
    forced = run_finetune("train", "--resume", run, "stages.1.epochs=3", "--force")
    assert forced.exit_code == 0, forced.output
    assert "not be exactly" in forced.output
    report = json.loads((run / "report.json").read_text())
    assert (report["epochs"], report["inexact"]) == (5, ["stages.1.epochs: 2, now 3"])


def test_what_had_changed_is_not_forgotten_at_the_next_resume(uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    assert run_finetune("train", "--resume", run, "one_cycle.div=20", "--force").exit_code == 0
    as_if_killed_at(MIDDLE, run, tmp_path / "again")
    result = run_finetune("train", "--resume", tmp_path / "again")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert report["inexact"] == ["one_cycle.div: 25.0, now 20.0"]


@pytest.fixture
def own_images(images, tmp_path):
    """Return a run over a copy of the images that may be changed."""
    folder = tmp_path / "own"
    shutil.copytree(images, folder)
    file = tmp_path / "own.yaml"
    file.write_text(CONFIG.format(path=folder).split("stages:")[0] + STAGE)
    run = tmp_path / "run"
    assert run_finetune("train", file, "--run-dir", run).exit_code == 0
    as_if_killed_at("00-000001-000000001.safetensors", run, tmp_path / "killed")
    return folder, tmp_path / "killed", run


STAGE = "stages: [{name: only, train: head, epochs: 2, lr: 1e-2}]\n"


def test_a_copy_of_the_images_is_the_same_data(own_images):
    folder, killed, whole = own_images
    for path in folder.rglob("*.png"):
        os.utime(path, (1, 1))
    result = run_finetune("train", "--resume", killed)
    assert result.exit_code == 0, result.output
    assert "will not be exactly" not in result.output
    assert result_of(killed) == result_of(whole)


def test_altered_added_and_removed_images_are_named(own_images):
    folder, killed, _ = own_images
    altered = (folder / "cat" / "cat00.png").read_bytes()
    (folder / "cat" / "cat00.png").write_bytes((folder / "owl" / "owl00.png").read_bytes())
    (folder / "dog" / "dog00.png").rename(folder / "dog" / "new.png")
    result = run_finetune("train", "--resume", killed)
    assert result.exit_code == 5
    assert "images altered: 1, cat/cat00.png" in result.stderr
    assert "images added: 1, dog/new.png" in result.stderr
    assert "images removed: 1, dog/dog00.png" in result.stderr
    assert altered  # the run itself is as it was:
    assert json.loads((killed / "status.json").read_text())["state"] == "running"
    forced = run_finetune("train", "--resume", killed, "--force")
    assert forced.exit_code == 0, forced.output
    assert len(json.loads((killed / "report.json").read_text())["inexact"]) == 3


def test_other_classes_are_refused_even_with_force(own_images):
    folder, killed, _ = own_images
    (folder / "cat").rename(folder / "lynx")
    result = run_finetune("train", "--resume", killed, "--force")
    assert result.exit_code == 5
    assert "−cat" in result.stderr
    assert "+lynx" in result.stderr


def test_a_run_of_a_version_that_keeps_other_things_is_refused(uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    rewrite(run, "started.json", lambda started: started.pop("format"))
    for arguments in ((), ("--force",)):
        result = run_finetune("train", "--resume", run, *arguments)
        assert result.exit_code == 5
        assert "was begun by another version of finetune" in result.stderr


def test_another_torch_is_told_and_goes_on(uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    arithmetic = "CUDA 12.0, cuDNN 9, no TF32, deterministic"
    other = {"torch": "1.0", "device": "CPU, 96 threads", "arithmetic": arithmetic}
    rewrite(run, "started.json", lambda started: started["environment"].update(other))
    result = run_finetune("train", "--resume", run)
    assert result.exit_code == 0
    assert "torch 1.0, now" in result.output
    assert "device CPU, 96 threads, now" in result.output
    assert f"arithmetic {arithmetic}, now the same bits" in result.output


def test_a_gpu_that_may_compute_other_bits_is_reported(uninterrupted, config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    settings = load_config(config)
    experiment = prepare(settings, Display(io.StringIO()))
    experiment = replace(experiment, device=torch.device("cuda", 0))
    said = "deterministic: false, so that a GPU may compute other bits each time"
    assert said not in check_environment(Run(uninterrupted), experiment)
    experiment = replace(experiment, config=settings.model_copy(update={"deterministic": False}))
    assert said in check_environment(Run(uninterrupted), experiment)


@pytest.mark.parametrize("name", ["NAdam", "RAdam", "Adam"])
def test_numbers_of_an_optimizer_stay_where_a_new_one_has_them(name):
    """Each step would wait for a GPU that holds them; `meta` stands for it."""
    model = torch.nn.Linear(3, 2)
    optimizer = getattr(torch.optim, name)(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    elsewhere = torch.nn.Linear(3, 2, device="meta")
    resumed = getattr(torch.optim, name)(elsewhere.parameters())
    restore_optimizer(resumed, training_tensors(model, optimizer))
    for saved, state in zip(optimizer.state.values(), resumed.state.values(), strict=True):
        assert {key: value.device.type for key, value in state.items()} == {
            key: "cpu" if value.ndim == 0 else "meta" for key, value in saved.items()
        }
        assert all(torch.equal(state[key], value) for key, value in saved.items() if value.ndim == 0)


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty"])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(damage, uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    newest = run / "checkpoints" / MIDDLE
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    whole = {"torn": content[: len(content) // 2], "flipped": content, "empty": b""}
    newest.write_bytes(whole[damage])
    result = run_finetune("train", "--resume", run)
    assert result.exit_code == 0, result.output
    assert "is damaged" in " ".join(result.output.split())
    assert "batch 1" in result.output
    assert result_of(run) == result_of(uninterrupted)


def test_a_newest_checkpoint_that_is_gone_is_warned_of(uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    status = json.loads((run / "status.json").read_text())
    status |= {"state": "stopped", "resumable": True, "last_checkpoint": MIDDLE.removesuffix(".safetensors")}
    (run / "status.json").write_text(json.dumps(status))
    (run / "checkpoints" / MIDDLE).unlink()
    result = run_finetune("train", "--resume", run)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert (
        f"warning: the checkpoint {MIDDLE.removesuffix('.safetensors')}, the newest by status.json, is"
        in said
    )
    assert "gone; the one before it is used" in said
    assert result_of(run) == result_of(uninterrupted)


@pytest.mark.parametrize("state", ["NaN", float("nan"), None, "", "Done", ["done"], 1])
def test_a_state_that_there_is_not_is_no_reason_to_train_on(state, uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    before = result_of(run)
    status = json.loads((run / "status.json").read_text()) | {"state": state}
    (run / "status.json").write_text(json.dumps(status))
    result = run_finetune("train", "--resume", run)
    assert result.exit_code == 5, result.output
    assert "status.json is damaged or was changed: state cannot be" in result.stderr
    assert result_of(run) == before


def test_if_all_checkpoints_are_damaged_nothing_is_guessed(uninterrupted, tmp_path):
    run = tmp_path / "run"
    as_if_killed_at(MIDDLE, uninterrupted, run)
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    best = (run / "model.safetensors").read_bytes()
    result = run_finetune("train", "--resume", run)
    assert result.exit_code == 5
    assert "checkpoints in" in result.stderr
    assert (run / "model.safetensors").read_bytes() == best


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.yaml", "--resume"], 2, "nowhere.yaml"),
        (["empty", "--resume"], 8, "empty is neither a run nor a folder of images"),
        (["empty"], 3, "no images in"),
        (["small.yaml", "--force"], 2, "--force is for --resume"),
        (["small.yaml", "--resume", "--overwrite"], 2, "leave out one"),
    ],
)
def test_what_cannot_be_resumed_is_said_in_a_line(arguments, code, words, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copy(config, tmp_path)
    result = run_finetune("train", *arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) <= 2


# Where in a training the signal comes: a function that is called there, and at which of its calls.
MOMENTS = {
    "scan": ("finetune.experiment.read_data.check_images", 1),
    "fingerprints": ("finetune.commands.train.train.take_fingerprints", 1),
    "beginning": ("finetune.commands.train.train.write_beginning", 1),
    "first step": ("finetune.commands.train.stages._Watch.step", 1),
    "step": ("finetune.commands.train.stages._Watch.step", 5),
    "validation": ("finetune.commands.train.stages._Watch.val_batch", 2),
    "end of an epoch": ("finetune.commands.train.stages._Watch.epoch", 2),
    "write of a checkpoint": ("finetune.runs.checkpointer.Checkpointer._write", 6),
    "last epoch": ("finetune.commands.train.stages._Watch.epoch", 3),
    "report": ("finetune.commands.train.finish.page_of_run", 1),
}
MOMENTS_OF_A_SEARCH = {
    "range test": ("finetune.experiment.lr_search.range_test", 1),
    "race": ("finetune.experiment.lr_search.run_race", 1),
    "rate found": ("finetune.commands.train.stages.draw_png", 1),
}


@pytest.fixture
def train_with_a_signal(config, tmp_path, monkeypatch):
    """Return a function that sends a signal at a moment of a training, and returns the run, resumed."""

    def train(moment, *changes):
        stopped = _stopped_at(moment, monkeypatch, "train", config, *changes, "--run-dir", tmp_path / "run")
        assert stopped.exit_code == 75, stopped.output
        resumed = run_finetune("train", config, *changes, "--run-dir", tmp_path / "run", "--resume")
        assert resumed.exit_code == 0, resumed.output
        return tmp_path / "run"

    return train


def _stopped_at(moment, monkeypatch, *arguments):
    target, which = moment
    calls = 0

    def signalled(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == which:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **named)

    original = pkgutil.resolve_name(target)
    with monkeypatch.context() as patch:
        patch.setattr(target, signalled)
        stopped = run_finetune(*arguments)
    assert calls >= which
    return stopped


@pytest.mark.parametrize("moment", some_quick(MOMENTS, "beginning", "step", "write of a checkpoint"))
def test_a_signal_at_any_moment_is_heeded_and_made_good(
    moment, train_with_a_signal, uninterrupted_with_given_rates
):
    run = train_with_a_signal(MOMENTS[moment], GIVEN_RATES)
    assert result_of(run) == result_of(uninterrupted_with_given_rates)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS_OF_A_SEARCH)
def test_a_signal_while_a_rate_is_found_is_heeded_and_made_good(moment, train_with_a_signal, uninterrupted):
    run = train_with_a_signal(MOMENTS_OF_A_SEARCH[moment])
    assert result_of(run) == result_of(uninterrupted)
