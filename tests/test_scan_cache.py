import multiprocessing
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from finetune.data.images import ImageInfo, ImageLimits
from finetune.data.quality import scan_cache
from finetune.data.quality.scan_cache import FileFacts, ScanMemory


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"any bytes")
    return path


def remembered(image):
    memory = ScanMemory(image.parent, ImageLimits())
    memory.remember("x.png", ImageInfo(8, 9, False))
    memory.save()
    return recalled(image)


def recalled(image):
    portions = list(ScanMemory(image.parent, ImageLimits()).recall(["x.png"]))
    return portions[0][0]


def test_what_was_good_is_remembered_in_the_cache_folder_of_the_user(image, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert remembered(image) == ImageInfo(8, 9, False)
    assert len(list(tmp_path.glob("cache/**/scans/*.safetensors"))) == 1


def test_a_cache_folder_that_cannot_be_made_is_ignored(image, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert remembered(image) is None


def test_a_relative_cache_folder_is_none(image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert remembered(image) == ImageInfo(8, 9, False)
    assert not Path("relative").exists()


def facts(*names):
    known = FileFacts()
    for number, name in enumerate(names):
        known.add(name, (number, -1 - number), ImageInfo(8, 9, number % 2 == 1))
    return known


def test_facts_come_back_from_their_bytes_whatever_files_are_called():
    names = ["a/1.png", "line\nend.png", "\udcff.png", "日本.png"]
    known = FileFacts.unpacked(facts(*names).packed())
    assert known.names == names
    assert [(known.stamp(row), known.info(row)) for row in (0, 3)] == [
        ((0, -1), ImageInfo(8, 9, False)),
        ((3, -4), ImageInfo(8, 9, True)),
    ]


def test_a_file_that_was_being_added_when_ctrl_c_came_costs_no_other_one():
    known = facts("a.png", "b.png")
    known._columns[0].append(5)
    assert FileFacts.unpacked(known.packed()).names == ["a.png", "b.png"]


def test_facts_of_a_file_that_has_changed_replace_the_old_ones(image, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remembered(image)
    image.write_bytes(b"other bytes")
    assert recalled(image) is None
    assert remembered(image) == ImageInfo(8, 9, False)
    (file,) = tmp_path.glob("cache/**/scans/*")
    assert FileFacts.unpacked(file.read_bytes()).names == ["x.png"]


def damaged(name, column):
    whole = load(facts("x").packed()) | {name: column}
    return save({found: part for found, part in whole.items() if part is not None})


@pytest.mark.parametrize(
    "content",
    [
        facts("x").packed()[:-1],
        b"{}",
        damaged("width", None),
        damaged("width", np.zeros(2, np.int32)),
        damaged("size", np.zeros(1, np.float64)),
        damaged("names", np.array([255], np.uint8)),
    ],
    ids=["cut", "other", "no column", "long column", "other numbers", "no text"],
)
def test_damaged_facts_are_refused(content):
    with pytest.raises(ValueError):  # by the module alone, which passes them over
        FileFacts.unpacked(content)


def test_facts_take_few_bytes_beside_the_names_of_the_files(tmp_path):
    names = [f"class_{n % 10}/{n:07}.png" for n in range(4096)]
    tracemalloc.start()
    known, info = FileFacts(), ImageInfo(500, 375, False)
    for number, name in enumerate(names):
        known.add(name, (10**5 + number, 10**18 + number), info)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 50 * len(names)


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Return a folder of files that are remembered, which count as very many."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scan_cache, "_MANY", 250)
    monkeypatch.setattr(scan_cache, "usable_cores", lambda: 2)
    root = tmp_path / "images"
    root.mkdir()
    memory = ScanMemory(root, ImageLimits())
    for number in range(250):
        (root / f"{number}.png").write_bytes(b"any bytes")
        memory.remember(f"{number}.png", ImageInfo(8, 1 + number, False))
    memory.save()
    return root


def heights(memory, names):
    """Return the heights of those that are known, which are their numbers, and None of the others."""
    return [info and info.height - 1 for portion in memory.recall(names) for info in portion]


def asked_ahead(root):
    return ScanMemory.asked_ahead(root, ImageLimits())


def answered(memory):
    """Wait until all answers are there; return which process gave them."""
    process, deadline = memory._answers._process, time.monotonic() + 60
    while len(b"".join(memory._answers._received)) < 250:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_very_many_files_are_asked_about_while_others_are_listed(images, monkeypatch):
    (images / "7.png").write_bytes(b"other bytes")
    (images / "9.png").unlink()
    memory = asked_ahead(images)
    process = answered(memory)
    monkeypatch.setattr(scan_cache, "_stamps", None)  # nothing is asked again
    names = [f"{number}.png" for number in reversed(range(250))]
    known = [None if number in (7, 9) else number for number in reversed(range(250))]
    assert heights(memory, ["new.png", *names]) == [None, *known]
    assert process.exitcode is not None
    assert process not in multiprocessing.active_children()


def test_what_has_no_answer_yet_is_not_waited_for(images):
    (images / "7.png").write_bytes(b"other bytes")
    memory = asked_ahead(images)  # its process has not begun yet
    assert heights(memory, ["7.png", "8.png", "249.png"]) == [None, 8, 249]
    memory = asked_ahead(images)
    memory._answers._process.kill()
    assert heights(memory, ["7.png", "8.png"]) == [None, 8]


def test_files_beyond_the_first_answers_are_asked_about(images):
    memory = ScanMemory(images, ImageLimits())
    memory._unchanged = bytes([1, 0, 1])
    assert heights(memory, ["0.png", "1.png", "2.png"]) == [0, None, 2]
    assert heights(memory, ["0.png", "1.png", "3.png"]) == [0, 1, 3]


def test_nothing_is_asked_ahead_where_it_would_take_longer(images, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(250):
            archive.writestr(f"{number}.png", b"any bytes")
    memory = ScanMemory(tmp_path / "a.zip", ImageLimits())
    for number in range(250):
        memory.remember(f"{number}.png", ImageInfo(8, 1 + number, False))
    memory.save()
    assert asked_ahead(tmp_path / "a.zip")._answers is None  # each process would read its directory
    monkeypatch.setattr(scan_cache, "usable_cores", lambda: 1)
    assert asked_ahead(images)._answers is None
    monkeypatch.setattr(scan_cache, "usable_cores", lambda: 2)
    monkeypatch.setattr(scan_cache, "_MANY", 251)
    assert asked_ahead(images)._answers is None


def test_a_memory_knows_its_folder_by_any_way_to_it(images, tmp_path):
    (tmp_path / "link").symlink_to(images)
    memory = ScanMemory(images, ImageLimits())
    assert memory.is_of(tmp_path / "link")
    assert not memory.is_of(tmp_path)
