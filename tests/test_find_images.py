"""Listing folders: once where nothing has changed, with a bar where it takes long."""

import os
from contextlib import contextmanager

import pytest

from finetune.data.indexing import find_images as module
from finetune.data.indexing.find_images import find_images, listing_bar, suffix_of
from finetune.progress import Bar


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return two folders of named files, whose times count at once."""
    monkeypatch.setattr("finetune.data.image_files.SETTLED", -(10**12))
    for name in ("a/1.jpg", "a/2.jpg", "b/deep/3.jpg", "b/notes.txt"):
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "root"


@pytest.fixture
def listed(monkeypatch):
    """Return the folders that are listed from now on."""
    folders, list_entries = [], module.list_entries
    monkeypatch.setattr(module, "list_entries", lambda path: folders.append(path) or list_entries(path))
    return folders


def change(root, what):
    """Change something in or below a folder, a tick of its clock later."""
    if what == "added":
        (root / "b" / "deep" / "4.jpg").touch()
    elif what == "removed":
        (root / "a" / "1.jpg").unlink()
    else:
        (root / "a" / "1.jpg").rename(root / "a" / "0.jpg")
    for folder in (root / "a", root / "b" / "deep"):
        status = folder.stat()
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def test_a_folder_is_listed_once_while_nothing_changes(root, listed):
    first = find_images(root, "")
    assert first.images == ["a/1.jpg", "a/2.jpg", "b/deep/3.jpg"]
    assert len(listed) == 4
    assert find_images(root, "") == first
    assert len(listed) == 4
    assert find_images(root, "b").images == ["b/deep/3.jpg"]


@pytest.mark.parametrize("what", ["added", "removed", "renamed"])
def test_a_change_anywhere_below_is_seen(root, what):
    before = find_images(root, "").images
    change(root, what)
    names = {"added": [*before, "b/deep/4.jpg"], "removed": before[1:], "renamed": ["a/0.jpg", *before[1:]]}
    assert find_images(root, "").images == names[what]


def test_a_folder_that_has_just_changed_is_listed_again(root, listed, monkeypatch):
    monkeypatch.setattr("finetune.data.image_files.SETTLED", 10**15)
    find_images(root, "")
    find_images(root, "")
    assert len(listed) == 8


def test_links_are_followed_anew(root, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.jpg").touch()
    (root / "link").symlink_to(tmp_path / "one")
    assert "link/x.jpg" in find_images(root, "").images
    (tmp_path / "one" / "x.jpg").unlink()
    assert "link/x.jpg" not in find_images(root, "").images


def test_listing_that_takes_long_counts_what_it_has_found(root, monkeypatch):
    seen = []

    class Counts(Bar):
        def advance_to(self, done, note=""):
            seen.append(done)

    @contextmanager
    def new_bar(label, total, unit="images"):
        seen.append((label, total, unit))
        yield Counts()
        seen.append("end")

    with listing_bar(new_bar):
        find_images(root, "a")
    assert seen == []
    monkeypatch.setattr(module, "_BAR_AFTER", -1)
    with listing_bar(new_bar):
        find_images(root, "")
    assert seen == [("listing", None, "files"), 2, 4, 6, 7, "end"]


@pytest.mark.parametrize("name", ["a.JPG", "a.tar.gz", "a.", "a", "..a", "...jpg", ".jpg", "a. b", "ä.Ñ"])
def test_an_ending_is_that_of_the_standard_library(name):
    assert suffix_of(name) == os.path.splitext(name)[1].lower()
