"""Digests of files: of what they hold now, and not read again while that is certain."""

import os
import time
from pathlib import Path

import pytest

from finetune.data.image_files import digest_file
from finetune.data.quality import content_digests
from finetune.data.quality.content_digests import ContentDigests

NAMES = ["a.png", "b.png"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for name in NAMES:
        (tmp_path / "data" / name).write_bytes(name.encode())
    return tmp_path / "data"


@pytest.fixture
def read(monkeypatch):
    """Return the names of the files that are read."""
    names = []

    def watched(path):
        names.append(Path(path).name)
        return digest_file(path)

    monkeypatch.setattr(content_digests, "digest_file", watched)
    return names


@pytest.fixture
def later(monkeypatch):
    """Let three seconds pass, so that a change would show in the times of a file."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3_000_000_000)


def digests(folder):
    return [content and content.digest for content in ContentDigests(folder).take(NAMES)]


def test_a_file_that_stays_is_read_once(folder, read, later):
    assert digests(folder) == digests(folder) == [digest_file(folder / name) for name in NAMES]
    assert sorted(read) == NAMES


def test_a_file_that_has_just_been_written_is_read_again(folder, read):
    assert digests(folder) == digests(folder)
    assert len(read) == 4
    digests_of = ContentDigests(folder)
    (content, _) = digests_of.take(NAMES)
    assert not content.settled
    assert digests_of.still("a.png", content)
    assert len(read) == 7


def test_a_change_of_equal_length_with_the_old_time_is_noticed(folder, later):
    before = digests(folder)
    path = folder / "a.png"
    status = path.stat()
    time.sleep(0.02)  # more than a tick of the clock of file systems
    path.write_bytes(b"z.png")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = digests(folder)
    assert after[0] == digest_file(path) != before[0]
    assert after[1] == before[1]


def test_a_file_that_changes_after_it_was_looked_at_is_told(folder):
    digests_of = ContentDigests(folder)
    contents = digests_of.take(NAMES)
    assert all(map(digests_of.still, NAMES, contents))
    time.sleep(0.02)
    (folder / "a.png").write_bytes(b"z.png")
    (folder / "b.png").unlink()
    assert not any(map(digests_of.still, NAMES, contents))


def test_a_file_that_cannot_be_read_has_none(folder):
    (folder / "a.png").unlink()
    assert digests(folder) == [None, digest_file(folder / "b.png")]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a.png": 3}', b'{"a.png": [1, 2, 3]}', b"\xff"])
def test_a_damaged_memory_is_passed_over(content, folder, later):
    expected = digests(folder)
    (memory,) = folder.parent.glob("cache/**/digests/*.json")
    memory.write_bytes(content)
    assert digests(folder) == expected
    assert digests(folder) == expected


def test_a_cache_folder_that_cannot_be_written_is_passed_over(folder, later):
    (folder.parent / "cache").write_text("a file where the folder should be")
    assert digests(folder) == digests(folder) == [digest_file(folder / name) for name in NAMES]
