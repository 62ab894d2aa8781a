"""What this machine has, without torch."""

import os
import subprocess
import sys

import pytest

from finetune.machine import hardware


def test_memory_is_that_of_the_container_where_it_has_a_limit(monkeypatch, tmp_path):
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(hardware, "_LIMITS", (limit, tmp_path / "none"))
    assert hardware.usable_memory() == whole
    limit.write_text("max\n")
    assert hardware.usable_memory() == whole
    limit.write_text("1000000\n")
    assert hardware.usable_memory() == 1_000_000


@pytest.mark.parametrize(
    ("system", "machine", "expected"), [("darwin", "arm64", True), ("darwin", "x86_64", False)]
)
def test_apples_own_processors_have_one(monkeypatch, system, machine, expected):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert hardware.has_gpu() is expected


def test_nvidias_are_known_by_their_device_or_their_program(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(hardware, "_GPU", tmp_path / "nvidia0")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not hardware.has_gpu()
    (tmp_path / "nvidia0").touch()
    assert hardware.has_gpu()
    monkeypatch.setattr(hardware, "_GPU", tmp_path / "none")
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    assert hardware.has_gpu()


def test_it_needs_no_torch():
    program = (
        "import sys, finetune.machine.hardware as h; h.has_gpu(), h.usable_memory(); "
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"
