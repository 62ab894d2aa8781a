"""Several processes train together: who has which rows, who learns of an end, and what all of them leave."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import run_finetune
from safetensors.torch import load_file

from finetune.commands.settings import RunOptions
from finetune.commands.train.alike import options_after_restart
from finetune.data.loading.sampler import EpochSampler
from finetune.data.loading.share import BatchShare, EvalShare, in_shares
from finetune.errors import ConfigError, DataError, ResourceError, Stopped
from finetune.machine.launched import Launched, launched
from finetune.machine.meeting import end_ranks
from finetune.machine.ranks import ALONE, Line, Ranks
from finetune.machine.signals import StopSignals

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "here", "MASTER_PORT": "1"}


def test_torchrun_says_which_process_this_is():
    more = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert launched(TORCHRUN | more) == Launched(1, 4, local_rank=0, local_size=1, restarts=2)
    assert launched({"WORLD_SIZE": "4"}) is None  # left over from something else
    assert launched(TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}) is None
    for wrong in ({"RANK": "4"}, {"WORLD_SIZE": "two"}):
        with pytest.raises(ConfigError, match="names no process of a training: RANK="):
            launched(TORCHRUN | wrong)


def test_another_command_is_left_to_rank_0(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert run_finetune("schema").stdout == ""
    monkeypatch.setenv("RANK", "0")
    assert run_finetune("schema").stdout.startswith("{")


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("parts", [1, 2])
def test_ranks_show_the_batches_of_one_process(size, parts):
    whole, shown = EpochSampler(40, 16, seed=1), []
    shares = [BatchShare(Ranks(rank, size), 16, parts) for rank in range(size)]
    for share in shares:
        sampler = EpochSampler(40, 16, seed=1, rows=share.rows())
        sampler.start_epoch(0, 1, first_batch=1)
        shown.append(list(sampler))
        assert len(sampler) == 2 * len(share.rows()) == 2 * len(shown[-1])
    batch = whole.keys(0, 1)[16:32]
    for share, keys in zip(shares, shown, strict=True):
        assert keys == [batch[row] for row in share.rows()]
    assert sorted(row for share in shares for row in share.rows()) == list(range(16))


def test_a_rank_loads_the_image_before_its_own_to_mix_with():
    first, second = (BatchShare(Ranks(rank, 2), 8, parts=2, with_partner=True) for rank in range(2))
    assert first.rows() == [3, 0, 1, 7, 4, 5]
    assert second.rows() == [1, 2, 3, 5, 6, 7]


class Added(Ranks):
    """Keeps what it would add up."""

    def add_up(self, tensor):
        self.kept.append(tensor.clone())


@pytest.mark.parametrize(("images", "size"), [(10, 2), (10, 4), (3, 2), (12, 3)])
def test_passes_are_divided_by_batches_and_put_together_in_order(images, size):
    seen, whole = [], torch.zeros(images)
    for rank in range(size):
        ranks = Added(rank, size)
        object.__setattr__(ranks, "kept", [])
        share = EvalShare(ranks, images, batch_size=4)
        seen.append(len(share.batches()))
        share.gather(torch.tensor(share.positions()) + 1.0)
        whole += ranks.kept[0]
    assert len(set(seen)) == 1  # they meet as often
    assert whole.tolist() == [position + 1.0 for position in range(images)]


def test_alone_everything_is_computed_as_it_comes():
    batches = [(torch.ones(2),), (torch.zeros(1),)]
    assert list(in_shares([1, 2, 3], 2, ALONE, lambda keys: iter(batches))) == batches
    assert ALONE.of_each(3) == [3]
    assert ALONE.of_first(3) == ALONE.largest(3) == 3


class Store(dict):
    """Holds notes as torch's store does."""

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]

    def check(self, keys):
        return all(key in self for key in keys)


def ranks_at(store, rank, size=3):
    return Ranks(rank, size, line=Line(store))


@pytest.fixture
def deaf(monkeypatch):
    """Leave the signals of this process alone, and do not wait for ranks that are not there."""
    monkeypatch.setattr("finetune.machine.meeting.LAST_WORDS", 0.05)
    monkeypatch.setattr("finetune.machine.ranks.ignore_signals", lambda: None)
    monkeypatch.setattr("finetune.machine.meeting.ignore_signals", lambda: None)


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize(
    ("code", "kind"), [(3, DataError), (6, ResourceError), (75, Stopped)], ids=["data", "memory", "signal"]
)
def test_who_notices_an_end_gives_its_reason_and_exit_code(code, kind):
    store = Store()
    end_ranks(ranks_at(store, 0), code, "why", None)
    for rank in (1, 2):
        with pytest.raises(kind, match="rank 0: why"):
            ranks_at(store, rank).report(RuntimeError("connection closed"))


@pytest.mark.usefixtures("deaf")
def test_a_rank_that_ended_without_a_word_is_named(monkeypatch):
    monkeypatch.setattr("finetune.machine.ranks.LAST_WORDS", 0.2)
    store = Store({"noticed/2": b""})
    ranks = ranks_at(store, 0)
    with pytest.raises(ResourceError, match="rank 1 has ended without a word"):
        ranks.report(RuntimeError("connection closed"))
    assert ranks.line.lost == (1,)
    assert "noticed/0" in store  # so that nobody takes this one for lost


@pytest.mark.usefixtures("deaf")
def test_one_rank_says_what_all_of_them_end_with():
    store = Store()
    end_ranks(ranks_at(store, 0), 2, "no such key", None)
    assert end_ranks(ranks_at(store, 1), 2, "no such key", None)
    assert not end_ranks(ranks_at(store, 2), 3, "a file is missing", None)


def test_a_job_that_torchrun_starts_again_resumes_its_run(tmp_path):
    store = Store()
    first, again = (Ranks(0, 2, restarts=restarts, line=Line(store, store)) for restarts in (0, 1))
    unnamed, named = RunOptions(), RunOptions(tmp_path, overwrite=True)
    assert options_after_restart(unnamed, first) == unnamed
    assert options_after_restart(named, first) == named
    assert options_after_restart(unnamed, again) == unnamed  # it had begun none, and others are not its own
    assert options_after_restart(named, again) == RunOptions(tmp_path, resume=True)
    first.remember("runs/photos-1")
    assert options_after_restart(unnamed, again) == RunOptions(Path("runs/photos-1"), resume=True)


class Largest(Ranks):
    """Knows what the others answer."""

    def largest(self, number):
        return max(number, self.other)


def test_a_signal_to_one_rank_stops_all():
    ranks = Largest(0, 2)
    object.__setattr__(ranks, "other", 0)
    with StopSignals(ranks) as stop, stop.deferred():
        assert not stop.asked()
        assert stop.asked(also=True)
        assert stop.received is None
        object.__setattr__(ranks, "other", signal.SIGTERM * 2 + 1)
        assert stop.asked()
        assert stop.received == "SIGTERM to rank 1"


def test_a_signal_that_torchrun_sends_on_is_no_second_one():
    with StopSignals(Ranks(0, 2)) as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.received, stop.insisted) == ("SIGTERM", False)


CONFIG = """
precision: float32
seed: 1
data: {path: "builtin:digits", augment: light, batch_size: 12, images_per_class: 6, image_size: 32}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [16]}}
optimizer: {name: sgd}
checkpoint: {every: 3}
stages:
  - {name: frozen, train: head, epochs: 2, lr: 3e-2}
  - {name: unfrozen, train: all, epochs: 2, lr: 1e-3}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def start(folder, run, *more, devices=2, launcher=("--devices", "2")):
    command = [sys.executable, "-m", "finetune", "train", "config.yaml", "--run-dir", run, "--resume", "-q"]
    return subprocess.Popen(
        [*command, *more, *(launcher if devices > 1 else ())],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / run / "..")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def on_two(folder):
    """Return the run of a training in two processes, next to which one process trains the same."""
    alone, two = start(folder, "alone", devices=1), start(folder, "two")
    for process in (two, alone):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return folder / "two"


def rank_pids(launcher):
    """Return the process of each rank, once all are there."""
    for _ in range(600):
        found, values = {}, {}
        for line in subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(launcher.pid)], capture_output=True, text=True, check=False
        ).stdout.split():
            with suppress(OSError), open(f"/proc/{line}/environ") as file:  # it may have ended
                values = dict(one.partition("=")[::2] for one in file.read().split("\0"))
            if "RANK" in values:
                found[int(values["RANK"])] = int(line)
        if len(found) == 2:
            return found
        time.sleep(0.1)
    raise AssertionError("no ranks")


def wait_for_step(run):
    for _ in range(1200):
        if list(run.glob("checkpoints/01-*.safetensors")):
            return
        time.sleep(0.05)
    raise AssertionError("no checkpoint")


def weights(run):
    return load_file(run / "model.safetensors")


@pytest.mark.slow
def test_two_processes_train_what_one_trains(folder, on_two):
    one, two = weights(folder / "alone"), weights(on_two)
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-5), name
    frozen = [
        [line for line in (run / "history.csv").read_text().splitlines() if line.startswith("frozen")]
        for run in (folder / "alone", on_two)
    ]
    cut = [[line.split(",")[:8] for line in lines] for lines in frozen]
    assert cut[0] == cut[1]  # a frozen backbone: the same bits
    assert json.loads((on_two / "started.json").read_text())["environment"]["devices"] == "2"


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_a_resume_ends_with_the_same_bits(folder, on_two):
    launcher = start(folder, "stopped")
    pids = rank_pids(launcher)
    wait_for_step(folder / "stopped")
    os.kill(pids[1], signal.SIGTERM)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 75
    assert "Stopped by SIGTERM to rank 1 and saved: stage unfrozen" in errors
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids.values())
    resumed = start(folder, "stopped")
    _, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    before, after = weights(on_two), weights(folder / "stopped")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_and_the_other_ends(folder):
    launcher = start(folder, "killed")
    pids = rank_pids(launcher)
    wait_for_step(folder / "killed")
    os.kill(pids[1], signal.SIGKILL)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 6
    assert "rank 1 has ended without a word" in errors
    assert "Traceback" not in errors
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids.values())
    status = json.loads((folder / "killed" / "status.json").read_text())
    assert (status["state"], status["resumable"]) == ("failed", True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_is_killed_while_all_still_start_is_named(folder, number):
    launcher = start(folder, f"killed-{number}-early")
    os.kill(rank_pids(launcher)[number], signal.SIGKILL)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 6
    assert f"rank {number} has ended without a word" in errors
    assert "Traceback" not in errors
