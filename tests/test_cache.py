"""The cache folder: what is in it, how much, and how it is emptied; nothing ever fails for it."""

import json
import os
import time
from datetime import datetime

import pytest
import torch
from conftest import run_finetune, write_small_config

from finetune.errors import ConfigError
from finetune.machine.cache import (
    cache_folder,
    cached_files,
    most_feature_bytes,
    parse_size,
    trim,
    write_cached,
)
from finetune.training.feature_store import FeatureStore, row_key


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Return a cache folder that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


def write_files(folder, *sizes):
    for number, size in enumerate(sizes):
        write_cached(folder / f"folder{number}" / "file", bytes(size))
        os.utime(folder / f"folder{number}" / "file", (number, number))


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("5GB", 5 * 10**9),
        ("1.5 gb", 1_500_000_000),
        ("500MB", 500 * 10**6),
        ("2GiB", 2 << 30),
        (" 3 k ", 3000),
        ("1TB", 10**12),
        ("12B", 12),
    ],
)
def test_sizes_are_read(written, size):
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "GB", "-1", "1e9", "five", "5 XB", "5GBs", "5,5GB"])
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ValueError, match="expected a size such as 5GB, 500MB or 0, not"):
        parse_size(written)


def test_the_bound_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", "20MB")
    assert most_feature_bytes() == 20 * 10**6
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", "")
    assert most_feature_bytes() == 5 * 10**9
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", "much")
    with pytest.raises(ConfigError) as error:
        most_feature_bytes()
    assert str(error.value).splitlines() == [
        "FINETUNE_CACHE_SIZE: expected a size such as 5GB, 500MB or 0, not 'much'.",
        "Correct the environment variable, or unset it for 5.0 GB.",
    ]


def test_what_was_used_last_stays(folder):
    write_files(folder, 100, 100, 100)
    os.utime(folder / "folder0" / "file")
    assert trim(cached_files(folder), 250) == 100
    assert sorted(os.listdir(folder)) == ["folder0", "folder2"]
    assert trim(cached_files(folder), 200) == 0
    assert trim(cached_files(folder), 0) == 200
    assert os.listdir(folder) == []


def test_a_write_is_whole_or_nothing(folder, monkeypatch):
    write_files(folder, 100)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_cached(folder / "folder0" / "file", b"other")
    assert (folder / "folder0" / "file").read_bytes() == bytes(100)
    assert os.listdir(folder / "folder0") == ["file"]


# The command


@pytest.fixture
def filled(folder, monkeypatch):
    """Return a cache folder with features of two networks, digests and scans."""
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", "2GB")
    for number, about in enumerate(("old, 32 px, float32", "new, 64 px, bfloat16")):
        stored = FeatureStore(folder / "features", 10**9).rows(f"namespace{number}", about)
        stored.add([row_key(n) for n in range(1000 + number)], torch.randn(1000 + number, 6))
        stored.save()
    write_cached(folder / "digests" / "a.json", bytes(300))
    write_cached(folder / "scans" / "a.json", bytes(100))
    write_cached(folder / "scans" / "b.json", bytes(100))
    for path in folder.glob("features/namespace0/*"):
        os.utime(path, (time.time() - 7300,) * 2)
    return folder


def told(*arguments):
    result = run_finetune("cache", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_command_shows_what_is_there(filled):
    report = told()
    entries = {entry["about"]: entry for entry in report["entries"]}
    assert list(entries)[-1] == "old, 32 px, float32"
    assert report["folder"] == str(filled)
    assert report["bytes"] == sum(path.stat().st_size for path in filled.rglob("*") if path.is_file())
    assert report["feature_bytes"] == report["bytes"] - 500
    assert report["most_feature_bytes"] == 2 * 10**9
    assert report["removed_bytes"] == 0
    assert {about: (entry["kind"], entry["images"]) for about, entry in entries.items()} == {
        "old, 32 px, float32": ("features", 1000),
        "new, 64 px, bfloat16": ("features", 1001),
        "digests of image files": ("digests", None),
        "which images are good": ("scans", None),
    }
    used = datetime.fromisoformat(entries["old, 32 px, float32"]["used"])
    assert 7200 < time.time() - used.timestamp() < 7400
    said = " ".join(run_finetune("cache").stdout.split())
    assert f"cache {filled}, " in said
    assert "features of new, 64 px, bfloat16 1,001 " in said
    assert "2 hours ago" in said
    assert "which images are good 2 data sets 200 B just now" in said
    assert "at most 2.0 GB (FINETUNE_CACHE_SIZE)" in said


def test_trim_removes_what_was_unused_for_longest_and_features_first(filled):
    whole = told()["bytes"]
    assert told("--trim", f"{whole}B")["removed_bytes"] == 0
    report = told("--trim", f"{whole - 1}B")
    assert report["removed_bytes"] > 50_000
    assert report["bytes"] + report["removed_bytes"] == whole
    assert "old, 32 px, float32" not in [entry["about"] for entry in report["entries"]]
    assert [entry["kind"] for entry in told("--trim", "0.5kB")["entries"]].count("features") == 0
    assert told("--trim", "200")["bytes"] == 200
    assert told("--trim", "0")["entries"] == []


def test_clear_removes_everything_and_nothing_else(filled):
    (filled / "mine.txt").write_text("a file of the user")
    write_cached(filled / "features" / "namespace0" / "half.tmp", b"half a segment")
    result = run_finetune("cache", "--clear")
    assert result.exit_code == 0
    assert result.stdout.startswith("removed ")
    assert [path.name for path in filled.rglob("*") if path.is_file()] == ["mine.txt"]
    assert told()["entries"] == []


def test_a_cache_that_is_empty_or_of_no_size(folder, monkeypatch):
    result = run_finetune("cache")
    assert result.exit_code == 0
    assert "0 B, none are kept (FINETUNE_CACHE_SIZE)" in result.stdout
    assert not folder.exists()


def test_damaged_files_are_shown_too(filled):
    for path in filled.glob("features/namespace0/*"):
        path.write_bytes(b"nonsense")
    assert ("damaged or half written", 0) in [
        (entry["about"], entry["images"]) for entry in told()["entries"]
    ]


@pytest.mark.parametrize(
    ("arguments", "bound", "message"),
    [
        (("--trim", "much"), "1GB", "--trim: expected a size such as 5GB, 500MB or 0, not 'much'."),
        (("--trim", "1GB", "--clear"), "1GB", "--clear removes everything, --trim all but a size."),
        ((), "much", "FINETUNE_CACHE_SIZE: expected a size such as 5GB, 500MB or 0, not 'much'."),
    ],
)
def test_mistakes_are_refused_in_two_lines(arguments, bound, message, filled, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", bound)
    result = run_finetune("cache", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.strip().splitlines()) == 2
    assert len(list(filled.rglob("*.json"))) == 3


def test_a_training_is_refused_at_once_where_the_bound_is_no_size(images, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", "much")
    result = run_finetune("train", write_small_config(tmp_path, images), "--run-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert "FINETUNE_CACHE_SIZE" in result.stderr
    assert not (tmp_path / "run").exists()
