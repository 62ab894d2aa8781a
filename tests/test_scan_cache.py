import json
from pathlib import Path

import pytest

from finetune.data.images import ImageInfo, ImageLimits
from finetune.data.quality.scan_cache import ScanMemory


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
    return portions[0].get("x.png") if portions else None


def test_what_was_good_is_remembered_in_the_cache_folder_of_the_user(image, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert remembered(image) == ImageInfo(8, 9, False)
    assert len(list(tmp_path.glob("cache/**/scans/*.json"))) == 1


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


@pytest.mark.parametrize(
    "change", [{"width": ["8"]}, {"size": None}, {"name": []}, {"modified": [1]}], ids=str
)
def test_a_damaged_cache_and_a_changed_file_are_ignored(image, tmp_path, monkeypatch, change):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert remembered(image) is not None
    (file,) = tmp_path.glob("cache/**/scans/*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert recalled(image) is None
