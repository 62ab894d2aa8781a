"""Trainings whose images are decoded once: the same bits, when it is worth it, and never in the way."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, draw_images, run_finetune, some_quick, write_small_config
from run_result import result_of
from test_resume import as_if_killed_at

from finetune.config.load import load_config
from finetune.data.loading.workers import memory_to_hand_over
from finetune.errors import ConfigError
from finetune.experiment.build import build_experiment
from finetune.experiment.decoded_images import DecodedCache
from finetune.experiment.loaders import StageLoaders
from finetune.experiment.read_data import read_data
from finetune.machine.cache import most_decoded_bytes

MANY = ("stages.frozen.features=live", "stages.frozen.epochs=3", "stages.unfrozen.epochs=3")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return a cache folder with room for decoded images, which trusts files that were just written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FINETUNE_DECODED_SIZE", "1GB")
    monkeypatch.setattr("finetune.data.loading.decoded.SETTLED", 0)
    return tmp_path / "cache" / "finetune"


@pytest.fixture
def opened(tmp_path, images):
    """Return a function that gives the loaders of a stage, and what is said of them."""

    def open_stage(*overrides, number=0, epoch=0, path=images):
        config = load_config(write_small_config(tmp_path, path), list(overrides))
        experiment = build_experiment(config, torch.device("cpu"), read_data(config))
        loaders = StageLoaders(experiment).of_stage(number)
        return loaders, DecodedCache(experiment).of_stage(number, epoch, loaders)

    return open_stage


def counts(loaders):
    """Return how many training and validation images are decoded."""
    return [
        0 if data.decoded is None else data.decoded.count
        for data in (loaders.train.dataset, loaders.val.dataset)
    ]


def result_without_config(run):
    return {what: value for what, value in result_of(run).items() if what != "config"}


@pytest.mark.parametrize(
    ("setting", "workers"),
    some_quick([("disk", 0), ("auto", 1), ("disk", 2), ("memory", 0), ("memory", 2)], ("disk", 0)),
)
def test_a_training_leaves_the_same_bits(setting, workers, images, small_run, tmp_path):
    config = write_small_config(tmp_path, images)
    keys = (f"data.cache={setting}", f"data.workers={workers}")
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", *keys)
    assert result.exit_code == 0, result.output
    assert "decoded once" in result.stdout
    got, expected = result_without_config(tmp_path / "run"), result_without_config(small_run)
    for what, value in expected.items():
        assert got[what] == value, what


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["disk", "memory"])
def test_a_resumed_training_leaves_the_same_bits_with_another_cache(setting, images, small_run, tmp_path):
    names = sorted(os.listdir(small_run / "checkpoints"))
    run = tmp_path / "run"
    as_if_killed_at(names[-2], small_run, run)
    result = run_finetune("train", "--resume", run, f"data.cache={setting}")
    assert result.exit_code == 0, result.output
    assert "exactly" not in result.output
    assert result_without_config(run) == result_without_config(small_run)


def test_images_are_kept_where_passes_are_many_and_found_by_the_next_run(opened):
    loaders, notes = opened(*MANY)
    assert counts(loaders) == [30, 6]
    (note,) = notes
    assert note.text.startswith("images: decoded once and kept on disk: 30 train (172.8 kB), 6 val (18.4 kB)")
    loaders, (note,) = opened(*MANY, number=1, epoch=2)
    assert counts(loaders) == [30, 6]
    assert "30 train (172.8 kB, 30 of them before)" in note.text


@pytest.mark.parametrize(
    ("overrides", "number", "epoch", "expected"),
    [
        ((), 0, 0, [30, 0]),  # a frozen epoch, whose validation images another loader reads, and two others
        ((), 1, 0, [0, 0]),
        (("stages.unfrozen.epochs=3",), 1, 0, [30, 6]),
        (("stages.unfrozen.epochs=3",), 1, 1, [0, 0]),
        (("stages.unfrozen.image_size=40",), 0, 0, [0, 0]),  # no pass shares its pixels with another
        (("stages.frozen.views=eval", "stages.unfrozen.epochs=5"), 0, 0, [0, 0]),
        (("stages.frozen.epochs=9", "stages.frozen.views=2", "stages.unfrozen.epochs=1"), 0, 0, [30, 0]),
        (("stages.frozen.epochs=9", "stages.frozen.views=1", "stages.unfrozen.epochs=1"), 0, 0, [0, 0]),
        (("data.cache=disk",), 1, 1, [30, 6]),
        (("data.cache=memory",), 1, 1, [30, 6]),
        (("data.cache=off", *MANY), 0, 0, [0, 0]),
    ],
)
def test_auto_decodes_once_what_three_passes_go_through(opened, overrides, number, epoch, expected):
    loaders, _ = opened(*overrides, number=number, epoch=epoch)
    assert counts(loaders) == expected


def test_a_key_of_decoding_leaves_what_was_decoded_with_another(opened):
    opened(*MANY)
    for keys in (["data.background='#000000'"], ["data.max_pixels=4000"], ["data.image_size=24"]):
        loaders, (note,) = opened(*MANY, *keys)
        assert counts(loaders) == [30, 6]
        assert "before" not in note.text


def test_auto_says_what_does_not_fit(opened, monkeypatch):
    monkeypatch.setattr("finetune.experiment.decoded_images.usable_memory", lambda: 400_000)
    loaders, notes = opened(*MANY)
    assert counts(loaders) == [0, 6]
    assert [note.text for note in notes if "more than" in note.text] == [
        "images: 30 train would take 172.8 kB decoded, more than 100.0 kB; "
        "each pass decodes them (data.cache)"
    ]
    assert not any(note.warning for note in notes)


@pytest.mark.parametrize("variable", ["FINETUNE_DECODED_SIZE", "FINETUNE_CACHE_SIZE"])
def test_who_keeps_nothing_is_asked_for_nothing(opened, monkeypatch, cache, variable):
    monkeypatch.delenv("FINETUNE_DECODED_SIZE")
    monkeypatch.setenv(variable, "0")
    assert opened(*MANY)[1] == []
    assert not (cache / "decoded").exists()
    loaders, notes = opened(*MANY, "data.cache=disk")
    assert counts(loaders) == [0, 0]
    assert [note.warning for note in notes] == [True]
    assert "more than 0 B are not kept (FINETUNE_DECODED_SIZE, free disk)" in notes[0].text


def test_the_bound_of_the_environment_is_checked(monkeypatch):
    monkeypatch.setenv("FINETUNE_DECODED_SIZE", "much")
    with pytest.raises(ConfigError, match="FINETUNE_DECODED_SIZE: expected a size such as 5GB"):
        most_decoded_bytes()
    monkeypatch.setenv("FINETUNE_DECODED_SIZE", "7GB")
    assert most_decoded_bytes() == 7 * 10**9


@pytest.mark.parametrize("setting", ["auto", "disk"])
def test_a_full_disk_is_said_once_and_leaves_the_images_as_they_are(opened, monkeypatch, cache, setting):
    replace = os.replace

    def full(source, target):
        if "decoded" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    loaders, notes = opened(*MANY, f"data.cache={setting}")
    assert counts(loaders) == [0, 0]
    assert len(list(loaders.val)) == 1
    assert all("cannot be written, or its disk is full" in note.text for note in notes)
    assert [note.warning for note in notes] == [setting == "disk"]
    assert not [path for path in (cache / "decoded").rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_costs_the_time_alone(opened, cache):
    cache.mkdir(parents=True)
    (cache / "decoded").write_text("")
    loaders, notes = opened(*MANY, "data.cache=disk")
    assert counts(loaders) == [0, 0]
    assert [note.warning for note in notes] == [True]


def test_memory_that_workers_cannot_have_is_not_filled(opened, monkeypatch, tmp_path):
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none: "spawn")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 400_000))
    loaders, notes = opened(*MANY, "data.cache=memory", "data.workers=1")
    assert counts(loaders) == [30, 6]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 200_000))
    loaders, notes = opened(*MANY, "data.cache=memory", "data.workers=1")
    assert counts(loaders) == [0, 6]
    assert [note.text for note in notes if note.warning] == [
        "images: there is room for 100.0 kB in memory that loader processes share; "
        "each pass decodes 30 of 30 train, and those of later stages"
    ]
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none: "fork")
    assert memory_to_hand_over() is None


def test_built_in_images_are_in_memory_anyway(opened):
    loaders, notes = opened(*MANY, "data.cache=disk", path="builtin:digits")
    assert (counts(loaders), notes) == ([0, 0], [])


KILLED = """
import os, signal, sys
from finetune.data.loading import decoded
from finetune.experiment import decoded_images
from finetune.cli.app import app
import finetune.cli, finetune.__main__
decoded.SETTLED = 0
replace, times = os.replace, 0
def killed(source, target):
    global times
    if "/decoded/" in str(target):
        times += 1
        if times == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
finetune.__main__.main()
"""


@pytest.mark.slow
def test_a_training_that_is_killed_while_it_decodes_leaves_nothing_wrong(images, small_run, tmp_path, cache):
    config = write_small_config(tmp_path, images)
    command = ["train", str(config), "--run-dir", str(tmp_path / "run"), "data.cache=disk"]
    process = subprocess.run([sys.executable, "-c", KILLED, *command], cwd=ROOT, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert len(list(cache.glob("decoded/*/*.tmp"))) == 1
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", "--resume", "data.cache=disk")
    assert result.exit_code == 0, result.output
    assert "30 of them before" in result.stdout
    assert result_without_config(tmp_path / "run") == result_without_config(small_run)


@pytest.mark.slow
def test_who_fills_and_who_removes_at_the_same_time_change_nothing(
    images, opened, small_run, tmp_path, cache
):
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    command = [sys.executable, "-m", "finetune", "train", str(config), "--run-dir", str(run)]
    process = subprocess.Popen([*command, "data.cache=disk"], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        loaders, _ = opened(*MANY, "data.cache=disk")
        assert counts(loaders) == [30, 6]
        shutil.rmtree(cache / "decoded", ignore_errors=True)
        assert len(list(loaders.val)) == 1
    assert process.returncode == 0
    assert result_without_config(run) == result_without_config(small_run)


def test_the_cache_command_lists_them(opened, tmp_path, cache):
    opened(*MANY, path=draw_images(tmp_path / "photos"))
    result = run_finetune("cache")
    assert "decoded images of photos, 64 px" in result.stdout
    assert "decoded images of photos, as evaluation shows them" in result.stdout
    assert "at most 1.0 GB (FINETUNE_DECODED_SIZE)" in result.stdout
    assert run_finetune("cache", "--clear").exit_code == 0
    assert not list(cache.rglob("*.safetensors"))
