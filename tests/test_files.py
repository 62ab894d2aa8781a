import errno
import os

import pytest

from finetune.errors import NotWritableError, ResourceError, RunError
from finetune.machine.files import try_writing, write_bytes, write_json


def test_a_file_is_replaced_whole(tmp_path):
    write_bytes(tmp_path / "f", b"old")
    write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path, monkeypatch):
    write_bytes(tmp_path / "f", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"f: No space left on device\. What was saved before is intact"):
        write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_file_that_was_never_written_is_not_called_intact(tmp_path):
    with pytest.raises(ResourceError, match=r"none/f: No such file or directory\.$"):
        write_bytes(tmp_path / "none" / "f", b"new")


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "f", float("nan"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_what_may_not_be_written_has_the_exit_code_of_a_run_directory_in_this_state(
    tmp_path, monkeypatch, number
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(NotWritableError, match=os.strerror(number)) as raised:
        write_bytes(tmp_path / "f", b"new")
    assert raised.value.exit_code == RunError.exit_code == 8


def test_a_trial_leaves_nothing_and_changes_nothing(tmp_path):
    write_bytes(tmp_path / "f", b"old")
    try_writing(tmp_path / "f")
    try_writing(tmp_path / "g")
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"
    with pytest.raises(ResourceError, match="Is a directory"):
        try_writing(tmp_path)
