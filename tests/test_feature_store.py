"""The store of features on disk: rows come back bit for bit or not at all, whatever happens to its files."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from finetune.machine.cache import cached_files, cached_rows
from finetune.training.feature_store import FeatureStore, row_key

KEYS = [row_key("image", number) for number in range(20)]
ROWS = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))


def store_of(folder, most_bytes=10**9):
    return FeatureStore(folder, most_bytes)


def fill(folder, keys=KEYS, rows=ROWS, namespace="one", most_bytes=10**9):
    stored = store_of(folder, most_bytes).rows(namespace, "a network")
    stored.add(keys, rows)
    stored.save()


def found(folder, keys=KEYS, namespace="one"):
    """Return the row of each key as a process that starts now finds it."""
    stored = store_of(folder).rows(namespace, "a network")
    return [stored.get(key) for key in keys]


def segments(folder):
    return [file.path for file in cached_files(folder)]


def check_right_or_missing(folder):
    """Return how many rows there are; each of them must be the right one."""
    rows = found(folder)
    for row, expected in zip(rows, ROWS, strict=True):
        assert row is None or torch.equal(row, expected)
    return sum(row is not None for row in rows)


def test_rows_come_back_to_the_last_bit(tmp_path):
    odd = torch.tensor([[float("nan"), -0.0, float("inf")], [1e-45, 3.3e38, 1 / 3]])
    fill(tmp_path)
    fill(tmp_path, KEYS[:2], odd, "odd")
    assert check_right_or_missing(tmp_path) == 20
    assert [row.view(torch.int32).tolist() for row in found(tmp_path, KEYS[:2], "odd")] == [
        row.view(torch.int32).tolist() for row in odd
    ]
    assert found(tmp_path, KEYS[2:4], "odd") == [None, None]
    assert found(tmp_path, namespace="another") == [None] * 20


@pytest.mark.parametrize("values", [torch.randn(20, 7).bfloat16().float(), torch.zeros(20, 7) - 0.0])
def test_bfloat16_is_stored_as_such_where_that_loses_nothing(values, tmp_path):
    fill(tmp_path, rows=values)
    (segment,) = segments(tmp_path)
    assert load_file(segment)["rows"].dtype == torch.bfloat16
    for row, expected in zip(found(tmp_path), values, strict=True):
        assert row.dtype == torch.float32
        assert row.view(torch.int32).tolist() == expected.view(torch.int32).tolist()
    fill(tmp_path / "other")
    (segment,) = segments(tmp_path / "other")
    assert load_file(segment)["rows"].dtype == torch.float32


def test_keys_differ_where_their_parts_do():
    parts = [("a", "bc"), ("ab", "c"), ("a", "b", "c"), ("abc",), ("abc", 1), ("abc", 11)]
    assert len({row_key(*part) for part in parts}) == len(parts)


def test_a_segment_says_what_it_holds(tmp_path):
    fill(tmp_path)
    (segment,) = segments(tmp_path)
    assert cached_rows(segment) == ("a network", 20)
    segment.write_bytes(b"no segment")
    assert cached_rows(segment) is None


def test_a_segment_that_was_cut_short_is_never_read(tmp_path):
    fill(tmp_path)
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        segment.parent.mkdir(exist_ok=True)
        segment.write_bytes(whole[:length])
        assert check_right_or_missing(tmp_path) == 0
        assert not segment.exists()


def test_no_flipped_bit_leaves_a_wrong_row(tmp_path):
    fill(tmp_path)
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    lost = 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        segment.parent.mkdir(exist_ok=True)
        segment.write_bytes(damaged)
        lost += 20 - check_right_or_missing(tmp_path)
    assert lost > len(whole) / 3 / 2  # bits of names and of metadata change nothing


def test_a_row_that_is_damaged_is_replaced(tmp_path):
    fill(tmp_path)
    (segment,) = segments(tmp_path)
    damaged = bytearray(segment.read_bytes())
    damaged[-1] ^= 1
    segment.write_bytes(damaged)
    stored = store_of(tmp_path).rows("one", "")
    lost = [number for number, key in enumerate(KEYS) if stored.get(key) is None]
    assert len(lost) == 1
    assert not segment.exists()
    stored.add(KEYS, ROWS)
    stored.save()
    assert check_right_or_missing(tmp_path) == 20


def test_the_store_keeps_its_bound_and_what_was_used_last(tmp_path):
    fill(tmp_path / "one")
    size = cached_files(tmp_path / "one")[0].bytes
    folder, bound = tmp_path / "store", 3 * size
    for number, name in enumerate("abc"):
        fill(folder, namespace=name, most_bytes=bound)
        for path in segments(folder / name):
            os.utime(path, (number, number))
    assert found(folder, namespace="a")[0] is not None  # it is of use again
    fill(folder, namespace="d", most_bytes=bound)
    assert sorted(path.parent.name for path in segments(folder)) == ["a", "c", "d"]
    assert sum(file.bytes for file in cached_files(folder)) <= bound
    assert not (folder / "b").exists()
    fill(folder, namespace="e", most_bytes=size - 1)
    assert not (folder / "e").exists()


@pytest.mark.parametrize("call", ["replace", "mkdir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_costs_nothing_else(call, number, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        fill(tmp_path)
    assert segments(tmp_path) == []
    fill(tmp_path)
    assert check_right_or_missing(tmp_path) == 20


def test_a_file_in_the_place_of_the_folder_is_no_store(tmp_path):
    (tmp_path / "store").write_text("")
    fill(tmp_path / "store")
    assert found(tmp_path / "store") == [None] * 20


def test_what_a_killed_process_left_goes_when_it_is_old(tmp_path):
    fill(tmp_path)
    young, old = tmp_path / "one" / "young.tmp", tmp_path / "one" / "old.tmp"
    for path in (young, old):
        path.write_bytes(b"half of a segment")
    os.utime(old, (time.time() - 7200,) * 2)
    fill(tmp_path, namespace="two")
    assert young.exists()
    assert not old.exists()
    assert check_right_or_missing(tmp_path) == 20


def test_a_reader_keeps_what_another_process_removes(tmp_path):
    fill(tmp_path)
    stored = store_of(tmp_path).rows("one", "")
    for path in segments(tmp_path):
        path.unlink()
    assert torch.equal(stored.get(KEYS[3]), ROWS[3])


WRITER = """
import sys, torch
from pathlib import Path
from finetune.training.feature_store import FeatureStore, row_key

folder, bound, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
print("started", flush=True)
number = 0
while True:
    stored = FeatureStore(folder, bound).rows("one", name)
    for image in range(50):
        row = stored.get(row_key("image", image))
        assert row is None or row.tolist() == [float(image)] * 20_000, image
    images = [(number + n) % 50 for n in range(5)]
    rows = torch.tensor(images).float()[:, None].expand(-1, 20_000)
    stored.add([row_key("image", n) for n in images], rows)
    stored.save()
    number += 1
"""


def start_writer(folder, name, bound=10**6):
    command = [sys.executable, "-c", WRITER, str(folder), str(bound), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


@pytest.mark.slow
def test_processes_at_once_read_nothing_wrong_and_survive_the_killing_of_others(tmp_path):
    """Three write, read and evict; every half second one is killed wherever it is, and another starts."""
    writers = [start_writer(tmp_path, str(number)) for number in range(3)]
    for turn in range(8):
        time.sleep(0.5)
        assert not [writer.stderr.read() for writer in writers if writer.poll() is not None]
        writers[turn % 3].send_signal(signal.SIGKILL)
        writers[turn % 3].communicate()
        writers[turn % 3] = start_writer(tmp_path, f"turn {turn}")
    for writer in writers:
        assert writer.poll() is None, writer.stderr.read()
        writer.kill()
        writer.communicate()
    stored = store_of(tmp_path).rows("one", "")
    rows = {image: stored.get(row_key("image", image)) for image in range(50)}
    assert any(row is not None for row in rows.values())
    for image, row in rows.items():
        assert row is None or row.tolist() == [float(image)] * 20_000
    fill(tmp_path, namespace="after", most_bytes=10**6)
    whole = [file.bytes for file in cached_files(tmp_path) if file.path.suffix != ".tmp"]
    assert sum(whole) <= 10**6
