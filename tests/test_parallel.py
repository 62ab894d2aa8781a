import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest
from PIL import Image

from finetune.data.images import (
    ImageInfo,
    ImageLimits,
    inspect_images,
    look_at_image,
    look_at_images,
    parallel,
)
from finetune.errors import ResourceError

LIMITS = ImageLimits()


@pytest.fixture
def paths(tmp_path):
    """Return seventy images, of which two cannot be read."""
    paths = [tmp_path / f"{number}.png" for number in range(70)]
    for number, path in enumerate(paths):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(path)
    paths[3].write_bytes(b"<html>")
    paths[69].unlink()
    return paths


@pytest.fixture
def shared(monkeypatch):
    """Let two cores share all but the first image, and return how many images processes are given."""
    monkeypatch.setattr(parallel, "usable_cores", lambda: 2)
    monkeypatch.setattr(parallel, "_PATIENCE", 0.0)
    monkeypatch.setattr(parallel, "_WORTH_PROCESSES", 0.0)
    started, real = [], parallel._in_processes
    monkeypatch.setattr(
        parallel,
        "_in_processes",
        lambda work, rest, *more: started.append(len(rest)) or real(work, rest, *more),
    )
    return started


@pytest.mark.parametrize("processes", [0, 2, None])
def test_looks_come_in_order_with_any_number_of_processes(paths, processes):
    looks = list(look_at_images(paths, LIMITS, processes=processes))
    assert looks[3] == "looks like HTML, 6 bytes"
    assert looks[69] == "no such file, or a link to one that is gone"
    good = [number for number in range(70) if number not in (3, 69)]
    assert [looks[number] for number in good] == [look_at_image(paths[number], LIMITS) for number in good]


@pytest.mark.parametrize(
    ("study", "computing", "others"),
    [(look_at_images, 0.0, [69]), (inspect_images, 0.0, [69]), (inspect_images, 9.0, [])],
    ids=["looks", "computing", "waiting"],
)
def test_a_slow_data_set_is_shared_among_processes(paths, monkeypatch, shared, study, computing, others):
    """Where it is storage that is slow, threads wait for it; the images are the same."""
    monkeypatch.setattr(parallel, "_COMPUTING", computing)
    found = list(study(paths, LIMITS))
    assert shared == others
    assert [number for number, one in enumerate(found) if isinstance(one, str)] == [3, 69]
    assert all(
        getattr(one, "info", one) == ImageInfo(20, 10, False) for one in found if not isinstance(one, str)
    )


@pytest.mark.parametrize(
    ("name", "most", "others"), [("a.zip", 100, [5]), ("a.zip", 3, []), ("a.tar", 100, [])]
)
def test_processes_share_an_archive_that_is_quick_to_open(tmp_path, monkeypatch, shared, name, most, others):
    monkeypatch.setattr(parallel, "_COMPUTING", 0.0)
    monkeypatch.setattr(parallel, "_MOST_MEMBERS", most)
    for number in range(6):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(6)]
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in files:
                archive.write(file, file.name)
    else:
        with tarfile.open(tmp_path / name, "w") as archive:
            for file in files:
                archive.add(file, file.name)
    found = list(inspect_images([tmp_path / name / file.name for file in files], LIMITS))
    assert found == [ImageInfo(20, 10, False)] * 6
    assert shared == others


def test_nothing_is_looked_at_in_no_files():
    assert list(look_at_images([], LIMITS, processes=2)) == []


def test_whoever_stops_early_leaves_no_process(paths):
    before = {child.pid for child in multiprocessing.active_children()}
    looks = look_at_images(paths, LIMITS, processes=2)
    next(looks)
    children = [child for child in multiprocessing.active_children() if child.pid not in before]
    assert children
    looks.close()
    for child in children:
        child.join(60)
        assert child.exitcode is not None


def test_a_killed_process_is_reported_and_not_waited_for(paths):
    before = {child.pid for child in multiprocessing.active_children()}
    looks = look_at_images(paths * 200, LIMITS, processes=2)
    next(looks)
    child = next(child for child in multiprocessing.active_children() if child.pid not in before)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ResourceError, match="was killed, most likely for lack of memory"):
        list(looks)


def test_processes_end_with_a_parent_that_was_killed_and_do_not_run_its_script_again(tmp_path):
    (tmp_path / "parent.py").write_text(
        "import multiprocessing, sys\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from finetune.data.images import ImageLimits, look_at_images\n"
        "path = Path(sys.argv[1])\n"
        "Image.new('L', (9, 9)).save(path)\n"
        "looks = look_at_images([path] * 100_000, ImageLimits(), processes=2)\n"
        "next(looks)\n"
        "print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "multiprocessing.Event().wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", tmp_path / "x.png"], stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, pids))


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
