"""A run whose files were damaged or edited is refused by whatever reads it."""

import csv
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import run_finetune, write_small_config
from safetensors import safe_open

from finetune.errors import CheckpointError
from finetune.runs import checksummed, create_run, open_run
from finetune.runs.digests import read_checked, write_covered


@pytest.fixture
def run(small_run, tmp_path, short_waits):
    return shutil.copytree(small_run, tmp_path / "run")


def swap_classes(path):
    names = json.loads(path.read_text())
    names = names if isinstance(names, list) else names["class_names"]
    text = path.read_text()
    one, two = (json.dumps(name) for name in names[:2])
    path.write_text(text.replace(one, "@").replace(two, one).replace("@", two))


def swap_labels(path):
    header, *rows = list(csv.reader(path.read_text().splitlines()))
    rows[0][2], rows[-1][2] = rows[-1][2], rows[0][2]
    path.write_text("\n".join(map(",".join, [header, *rows])) + "\n")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "model.safetensors": flip_a_bit,
    "model.json": swap_classes,
    "classes.json": swap_classes,
    "split.csv": swap_labels,
    "files.csv": flip_a_bit,
    "started.json": flip_a_bit,
}

# What reads a run, and the files that its answer depends on.
MODEL = ("model.safetensors", "model.json")
READERS = {
    "evaluate": (*MODEL, "split.csv"),
    "predict": MODEL,
    "weights": MODEL,
    "lr-find": MODEL,
    "resume": ("classes.json", "split.csv", "files.csv", "started.json"),
}


def read_by(reader, run, images, tmp_path):
    config = write_small_config(tmp_path, images)
    match reader:
        case "evaluate":
            return run_finetune("evaluate", run)
        case "predict":
            return run_finetune("predict", run, images / "cat" / "cat00.png")
        case "weights":
            return run_finetune("train", config, f"model.weights={run}", "--dry-run")
        case "lr-find":
            return run_finetune("lr-find", config, "--run", run)
        case _:
            (run / "status.json").write_text('{"state": "stopped"}')
            return run_finetune("train", "--resume", run)


@pytest.mark.parametrize(("reader", "name"), [(r, name) for r, names in READERS.items() for name in names])
def test_a_changed_file_is_refused_by_all_that_depend_on_it(run, images, tmp_path, reader, name):
    DAMAGE[name](run / name)
    result = read_by(reader, run, images, tmp_path)
    assert result.exit_code == 5, result.output
    assert f"{run / name} is damaged" in result.stderr
    assert len(result.stderr.strip().splitlines()[-2:]) == 2


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_or_missing_list_is_refused(run, images, tmp_path, reader):
    (run / "digests.json").write_text("{")
    assert read_by(reader, run, images, tmp_path).exit_code == 5
    (run / "digests.json").unlink()
    result = read_by(reader, run, images, tmp_path)
    assert result.exit_code == 5
    assert "digests.json is missing: it was removed, or the run is of another version" in result.stderr


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("writes", range(3))
def test_a_kill_at_any_moment_leaves_files_that_belong_together(tmp_path, monkeypatch, writes):
    write_covered(tmp_path, {"classes.json": b"old", "split.csv": b"old"})
    replace, made = os.replace, []

    def killed(source, target):
        if len(made) == writes:
            raise KilledError
        made.append(target)
        replace(source, target)

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KilledError):
        write_covered(tmp_path, {"classes.json": b"new", "split.csv": b"new"})
    contents = [read_checked(tmp_path / name) for name in ("classes.json", "split.csv")]
    assert contents == ([b"old"] * 2 if writes == 0 else [b"new"] * 2)
    monkeypatch.setattr("os.replace", replace)
    write_covered(tmp_path, {"files.csv": b"more"})
    assert contents == [(tmp_path / name).read_bytes() for name in ("classes.json", "split.csv")]


def test_a_kill_while_files_are_staged_leaves_the_old_ones(tmp_path, monkeypatch):
    write_covered(tmp_path, {"classes.json": b"old", "split.csv": b"old"})
    flush, made = os.fsync, []

    def killed(descriptor):
        if made:
            raise KilledError
        made.append(descriptor)
        flush(descriptor)

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KilledError):
        write_covered(tmp_path, {"classes.json": b"new", "split.csv": b"new"})
    assert [read_checked(tmp_path / name) for name in ("classes.json", "split.csv")] == [b"old"] * 2


def test_a_model_read_while_a_better_one_is_saved_is_one_of_the_two(tmp_path):
    with create_run(tmp_path / "run", parent=tmp_path, name="x") as run, ThreadPoolExecutor() as threads:
        run.save_model({"a": torch.full((100_000,), 0.0)}, {"epoch": 0})

        def save_better_models():
            for number in range(30):
                run.save_model({"a": torch.full((100_000,), float(number))}, {"epoch": number})
                time.sleep(0.05)

        saved = threads.submit(save_better_models)
        while not saved.done():
            tensors, description = open_run(run.directory).load_model()
            assert tensors["a"][0] == description["epoch"]


def test_a_file_that_gets_another_name_while_it_is_opened_is_missing(tmp_path, monkeypatch):
    """A reader then looks for it anew; that a file is damaged would be untrue."""
    path = tmp_path / "x.safetensors"

    def renamed_first(name, **options):
        os.rename(name, tmp_path / "y.safetensors")
        return safe_open(name, **options)

    monkeypatch.setattr(checksummed, "safe_open", renamed_first)
    path.write_bytes(checksummed.dump_checksummed({"a": torch.ones(3)}))
    with pytest.raises(FileNotFoundError):
        checksummed.load_checksummed(path)


def test_a_missing_file_of_the_list_is_named(run):
    (run / "model.safetensors").unlink()
    result = run_finetune("evaluate", run)
    assert result.exit_code == 5
    assert f"{run / 'model.safetensors'} is missing.\nRestore the file from a copy" in result.stderr


def test_what_a_kill_left_is_forgotten_by_the_next_write(tmp_path):
    write_covered(tmp_path, {"classes.json": b"old"})
    write_covered(tmp_path, {"classes.json": b"new"})
    (tmp_path / "classes.json").write_bytes(b"old")
    with pytest.raises(CheckpointError, match=r"classes\.json is damaged or was changed: its SHA-256 is not"):
        read_checked(tmp_path / "classes.json")


def test_other_files_are_read_as_they_are(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"seed: 1")
    assert read_checked(tmp_path / "config.yaml") == b"seed: 1"
