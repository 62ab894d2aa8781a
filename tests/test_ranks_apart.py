"""Ranks as processes that share nothing but a network: what they have to have alike, and how they end.

Each has a folder of its own, as machines without a shared file system have.
"""

import os
import re
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image
from rank_process import Rank, Started, free_port
from safetensors.torch import load_file
from sklearn.datasets import load_digits

pytestmark = pytest.mark.slow

CONFIG = """
precision: float32
seed: 1
data: {path: images, augment: light, batch_size: 8, val: 0.25, image_size: 32}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [16]}}
optimizer: {name: sgd}
checkpoint: {every: 3}
stages:
  - {name: frozen, train: head, epochs: 1, lr: 3e-2}
  - {name: unfrozen, train: all, epochs: 2, lr: 1e-3}
"""


@pytest.fixture
def machines(tmp_path):
    """Return the folders of three machines, each with the same config and equal images."""
    counts, targets = load_digits(return_X_y=True)
    folders = [tmp_path / f"machine-{number}" for number in range(3)]
    for digit in (0, 1):
        (folders[0] / "images" / str(digit)).mkdir(parents=True)
        for number, row in enumerate(counts[targets == digit][:12]):
            image = Image.fromarray((row.reshape(8, 8) * 15).astype("uint8"))
            image.save(folders[0] / "images" / str(digit) / f"{number}.png")
    (folders[0] / "config.yaml").write_text(CONFIG)
    for folder in folders[1:]:
        shutil.copytree(folders[0], folder)
    return folders


def start(machines, *more, size=2, port=None, others=(), **of_last):
    arguments = ["train", "config.yaml", "--quiet", *more]
    ranks = [Rank([*arguments], folder) for folder in machines[:size]]
    ranks[-1] = Rank([*arguments, *others], machines[size - 1], **of_last)
    return Started(ranks, machines[0].parent, port or free_port())


def end(machines, *more, **how):
    return start(machines, *more, **how).end()


def text_of_one(ended, code):
    """Return what all said together, of which one alone says anything; all end with the same exit code."""
    assert [one for one, _ in ended] == [code] * len(ended)
    said = [text for _, text in ended if text]
    assert len(said) == 1, said
    assert len(said[0].splitlines()) <= 3, said
    return said[0]


def stop(started, run):
    """Stop the last rank in the midst of the second stage."""
    last = time.monotonic() + 60
    while not list(run.glob("checkpoints/01-*.safetensors")):
        assert time.monotonic() < last
        time.sleep(0.02)
    os.kill(started.processes[-1].pid, signal.SIGTERM)
    ended = started.end()
    assert [code for code, _ in ended] == [75] * len(ended)


def differs(one, other):
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def test_a_run_is_resumed_on_any_number_of_ranks_that_do_not_share_a_file_system(machines):
    home = machines[0]
    assert [code for code, _ in end(machines, "--run-dir", "whole")] == [0, 0]
    stop(start(machines, "--run-dir", "of-2"), home / "of-2")
    stop(start(machines, "--run-dir", "of-1", size=1), home / "of-1")
    shutil.copytree(home / "of-2", home / "of-2-on-3")  # which does not divide its batches of 8
    for run, before, now in (("of-2", 2, 1), ("of-2-on-3", 2, 3), ("of-1", 1, 2)):
        ended = end(machines, "--run-dir", run, "--resume", size=now)
        assert [code for code, _ in ended] == [0] * now
        assert "not be exactly that of an uninterrupted run" in ended[0][1]
        assert f"devices {before}, now {now}" in ended[0][1]
        assert differs(home / "whole", home / run) < 1e-5
    assert not (machines[1] / "whole").exists()


def test_a_rank_with_another_config_or_version_is_named(machines, tmp_path):
    text = text_of_one(end(machines, others=["optimizer.name=adam", "seed=3"]), 2)
    assert "rank 1 differs from rank 0: seed 3, not 1; optimizer.name adam, not sgd.\n" in text
    package = tmp_path / "old" / "fastai-1.2.3.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: fastai\nVersion: 1.2.3\n")
    text = text_of_one(end(machines, libraries=tmp_path / "old"), 2)
    assert "rank 1 differs from rank 0: fastai 1.2.3, not " in text


def test_a_rank_with_other_data_or_none_is_named(machines):
    image = machines[1] / "images" / "0" / "3.png"
    image.write_bytes(image.read_bytes() + b"\0")
    assert "rank 1 sees other data than rank 0: first 0/3.png." in text_of_one(end(machines), 3)
    image.unlink()
    assert "rank 1 sees other data than rank 0: first 0/3.png." in text_of_one(end(machines), 3)
    shutil.rmtree(machines[1] / "images")
    assert "error: rank 1: no such directory: " in text_of_one(end(machines), 3)


def test_a_batch_that_cannot_be_shared_is_refused(machines):
    text = text_of_one(end(machines, "data.batch_size=2", size=3), 2)
    assert "data.batch_size: 3 devices cannot share batches of 2 images." in text


def test_a_rank_without_memory_ends_all_and_is_named(machines):
    ended = end(machines, "data.image_size=224", "data.workers=1", memory=80 << 20)
    assert [code for code, _ in ended] == [6, 6]
    said = "".join(text for _, text in ended)
    # On a busy machine rank 0 may take rank 1 for killed while that one still looks for memory to speak.
    assert re.search(r"error: (rank 1: )?Out of memory", said)
    assert "Traceback" not in said


def test_a_rank_that_fails_before_all_have_met_ends_the_others_with_its_reason(machines):
    (machines[1] / "config.yaml").write_text("data: {path: images")
    began = time.monotonic()
    text = text_of_one(end(machines, size=3), 2)
    assert text.startswith("error: rank 1: config.yaml:1:20: ")
    assert time.monotonic() - began < 40


@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_that_is_killed_before_all_have_met_is_named_within_seconds(machines, number):
    files = Path(tempfile.gettempdir()) / f"finetune-ranks-{os.getuid()}"
    before = set(files.glob("*"))
    started = start(machines)
    last = time.monotonic() + 60
    while not (set(files.glob(f"*-{number}")) - before):
        assert time.monotonic() < last
        time.sleep(0.01)
    os.kill(started.processes[number].pid, signal.SIGKILL)
    began = time.monotonic()
    ended = started.end()
    assert time.monotonic() - began < 20
    assert [code for code, _ in ended] == [-signal.SIGKILL if one == number else 6 for one in range(2)]
    assert f"rank {number} has ended without a word: killed" in ended[1 - number][1]


def test_a_rank_that_is_killed_leaves_no_process_behind(machines):
    started = start(machines, "data.workers=1", "stages.unfrozen.epochs=90", "--run-dir", "killed")
    last = time.monotonic() + 60
    while not list((machines[0] / "killed").glob("checkpoints/01-*.safetensors")):
        assert time.monotonic() < last
        time.sleep(0.02)
    os.kill(started.processes[1].pid, signal.SIGKILL)
    (first, text), (killed, _) = started.end(within=40)
    assert (first, killed) == (6, -signal.SIGKILL)
    assert "error: rank 1 has ended without a word: killed" in text


def test_a_port_that_is_taken_is_named_by_each_rank(machines):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = end(machines, port=port, patience=2)
    assert [code for code, _ in ended] == [7, 7]
    for rank, (_, text) in enumerate(ended):
        assert text.startswith(f"error: rank {rank} cannot reach the others at 127.0.0.1:{port}: ")
        assert len(text.splitlines()) == 2
    assert "address already in use" in ended[0][1]
