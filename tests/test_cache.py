"""The cache folder: what is in it, how much, and how it is emptied; nothing ever fails for it."""

import os

import pytest

from finetune.errors import ConfigError
from finetune.machine.cache import (
    cache_folder,
    cached_files,
    most_feature_bytes,
    parse_size,
    shown_size,
    trim,
    write_cached,
)


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


def test_sizes_are_shown():
    assert [shown_size(size) for size in (0, 999, 12_345, 12_345_678, 5 * 10**9)] == [
        "0 B",
        "999 B",
        "12.3 kB",
        "12.3 MB",
        "5.0 GB",
    ]


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
