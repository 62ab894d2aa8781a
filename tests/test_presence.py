"""Ranks of one machine see each other by locks on files; ranks of others by signs of life."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from test_ranks import Store

from finetune.errors import DataError, ResourceError
from finetune.machine import watch as watch_module
from finetune.machine.launched import Launched
from finetune.machine.presence import Presence, silent_end
from finetune.machine.ranks import Line, Ranks
from finetune.machine.watch import Watch, in_thread


@pytest.fixture
def deaf(monkeypatch):
    """Leave the signals of this process alone."""
    monkeypatch.setattr("finetune.machine.ranks.ignore_signals", lambda: None)


OTHER = """
import os, sys
from pathlib import Path
from finetune.machine.launched import Launched
from finetune.machine.presence import Presence
os.getppid = lambda: int(sys.argv[2])  # as if one launcher had started both
presence = Presence(Launched(1, 3, 1, 3, 0), Path(sys.argv[1]))
print("here", flush=True)
input()
presence.leave()
"""


@pytest.fixture
def other(tmp_path):
    command = [sys.executable, "-c", OTHER, str(tmp_path), str(os.getppid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def presence_of(tmp_path, rank=0):
    return Presence(Launched(rank, 3, rank, 3, 0), tmp_path)


def test_a_rank_that_is_killed_is_gone_and_one_that_was_never_seen_is_not(other, tmp_path):
    presence = presence_of(tmp_path)
    assert presence.gone(settled=0) == []
    other.kill()
    other.wait()
    assert presence.gone() == []  # another one may be taking the file over at this moment
    assert presence.gone(settled=0) == [1]
    assert presence.gone(settled=0) == [1]


def test_a_rank_that_leaves_in_order_is_not_gone(other, tmp_path):
    presence = presence_of(tmp_path)
    other.communicate("\n", timeout=30)
    assert presence.gone(settled=0) == []


def test_a_file_of_an_earlier_job_says_nothing(other, tmp_path):
    presence = presence_of(tmp_path)
    other.kill()
    other.wait()
    (file,) = tmp_path.glob("*-1")
    os.utime(file, (0, time.time() - 3600))
    assert presence.gone(settled=0) == []


def test_a_folder_that_cannot_be_made_costs_only_the_news(tmp_path):
    (tmp_path / "file").touch()
    presence = presence_of(tmp_path / "file")
    assert presence.gone(settled=0) == []
    presence.leave()


def watch_at(store, tmp_path, rank=0):
    return Watch(Ranks(rank, 3, line=Line(store)), presence_of(tmp_path, rank))


@pytest.mark.usefixtures("deaf")
def test_a_rank_whose_signs_of_life_end_is_named_unless_it_has_met_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(watch_module, "_BEAT", 0.0)
    monkeypatch.setattr(watch_module, "_SILENCE", 0.1)
    store = Store()
    watch = watch_at(store, tmp_path)
    for beat in range(3):
        store.set("alive/1", str(beat))
        watch.look()
        time.sleep(0.06)
    store.set("met/1", "")
    time.sleep(0.2)
    watch.look()
    del store["met/1"]
    time.sleep(0.2)
    with pytest.raises(ResourceError, match="rank 1 has ended without a word"):
        watch.look()


def store_with_note(rank, **note):
    store = Store()
    store.set(f"end/{rank}", json.dumps(note))
    store.set("ended", "")
    return store


@pytest.mark.usefixtures("deaf")
def test_the_note_of_a_rank_that_has_lost_others_names_them(tmp_path):
    store = store_with_note(2, code=6, text="rank 1 has …", relayed=True, lost=[1])
    began = time.monotonic()
    with pytest.raises(ResourceError, match="rank 1 has ended without a word"):
        watch_at(store, tmp_path).look()
    assert time.monotonic() - began < 2


@pytest.mark.usefixtures("deaf")
def test_a_rank_that_waits_for_all_reads_the_note_of_one_that_has_failed(tmp_path):
    store = store_with_note(1, code=3, text="no such file", relayed=False, lost=[])
    with pytest.raises(DataError, match="rank 1: no such file"):
        watch_at(store, tmp_path).wait_for_all(60)


def test_a_rank_that_does_not_come_is_named_after_a_time(tmp_path):
    store = Store()
    store.set("ready/0", "cpu")
    store.set("ready/2", "cpu")
    with pytest.raises(TimeoutError, match="rank 1 has not come within 0 s"):
        watch_at(store, tmp_path).wait_for_all(0.1)


def test_work_in_a_thread_returns_raises_and_is_left_behind_where_the_look_raises():
    assert in_thread(lambda: 3, lambda: None, 5) == 3
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 / 0, lambda: None, 5)
    ending = threading.Event()

    def look():
        raise silent_end([1])

    with pytest.raises(ResourceError, match="rank 1"):
        in_thread(ending.wait, look, 5)
    with pytest.raises(TimeoutError):
        in_thread(ending.wait, lambda: None, 0.1)
    ending.set()
