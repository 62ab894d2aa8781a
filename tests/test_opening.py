"""The lock of a run directory, held across processes."""

import os
import subprocess
import sys

import pytest

from finetune.errors import RunError
from finetune.runs import create_run

HOLD = """
import os, sys, time
from pathlib import Path
from finetune.runs import create_run
run = create_run(Path(sys.argv[1]), parent=Path("runs"), name="x")
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(60)
print("held", flush=True)
time.sleep(60)
"""


def hold_elsewhere(directory, *, fork=False):
    command = [sys.executable, "-c", HOLD, str(directory), "fork" if fork else "alone"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    return process


def hold(directory):
    return create_run(directory, parent=directory.parent, name="x")


def test_a_directory_that_another_process_holds_is_refused_with_its_number(tmp_path):
    process = hold_elsewhere(tmp_path / "run")
    try:
        for _ in range(2):  # an attempt does not erase the number
            with pytest.raises(RunError, match=f"is in use by process {process.pid} on "):
                hold(tmp_path / "run")
    finally:
        process.kill()
        process.communicate()
    with hold(tmp_path / "run"):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_what_a_killed_process_has_forked_does_not_hold_its_lock(tmp_path):
    process = hold_elsewhere(tmp_path / "run", fork=True)
    process.kill()
    process.wait()
    try:
        with hold(tmp_path / "run"):
            pass
    finally:
        os.killpg(process.pid, 9)
        process.communicate()


def test_a_run_that_was_left_can_be_held_again(tmp_path):
    with hold(tmp_path / "run"), pytest.raises(RunError, match="is in use by process"):
        hold(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with hold(tmp_path / "run"):
        pass
