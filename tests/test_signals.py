"""Signals that stop a training: real ones, to real processes, in every phase."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import SMALL_CONFIG, run_finetune

from finetune.machine import signals
from finetune.machine.signals import StopSignals

LONG = "stages=[{name: long, train: head, epochs: 10000, lr: 1e-3}]"

# What a process prints, or leaves, when it has come to a phase; the config that makes the phase long.
PHASES = {
    "training": ("model.safetensors", [LONG]),
    "a rate is found": ("started.json", [LONG.replace("1e-3", "auto"), "lr_finder.steps=20000"]),
    "an unfrozen stage": ("model.safetensors", [LONG.replace("head", "all")]),
}


@pytest.fixture
def config(images, tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL_CONFIG.format(path=images))
    return file


def heed_ctrl_c():
    """Undo what a shell does to the jobs that it starts in the background, and lead a group of our own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setpgid(0, 0)


class Training:
    """`finetune train` in a process of its own."""

    def __init__(self, config, *arguments):
        self.run = config.parent / "run"
        command = [sys.executable, "-m", "finetune", "train", config, "--run-dir", self.run, *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def wait_for(self, name):
        deadline = time.monotonic() + 120
        while not (self.run / name).exists():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)

    def end(self):
        """Wait for the end, and give what was said about it."""
        _, errors = self.process.communicate(timeout=120)
        assert "Traceback" not in errors
        return errors

    def status(self):
        return json.loads((self.run / "status.json").read_text())


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        signal.SIGTERM,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_in_training_ends_with_75_and_a_checkpoint(number, config):
    with Training(config, LONG) as training:
        training.wait_for("model.safetensors")
        training.process.send_signal(number)
        errors = training.end()
    assert training.process.returncode == 75, errors
    assert f"Stopped by {signal.Signals(number).name} and saved: stage long" in errors
    assert f"finetune train --resume {training.run}" in errors
    status = training.status()
    assert (status["state"], status["exit_code"], status["resumable"]) == ("stopped", 75, True)
    assert (training.run / "checkpoints" / f"{status['last_checkpoint']}.safetensors").exists()
    assert run_finetune("evaluate", training.run, "--json").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase_ends_with_75(phase, config):
    begun, arguments = PHASES[phase]
    with Training(config, *arguments) as training:
        training.wait_for(begun)
        training.process.send_signal(signal.SIGTERM)
        errors = training.end()
    assert training.process.returncode == 75, errors
    assert training.status()["state"] == "stopped"
    assert training.status()["resumable"]


@pytest.mark.slow
def test_a_signal_in_the_scan_of_the_data_leaves_nothing(images, tmp_path):
    for folder in ("cat", "dog"):
        (tmp_path / "many" / folder).mkdir(parents=True)
        content = (images / folder / f"{folder}00.png").read_bytes()
        for number in range(6000):
            (tmp_path / "many" / folder / f"{number}.png").write_bytes(content)
    config = tmp_path / "small.yaml"
    config.write_text(SMALL_CONFIG.format(path=tmp_path / "many"))
    with Training(config) as training:
        training.wait_for(".lock")
        training.process.send_signal(signal.SIGTERM)
        errors = training.end()
    assert training.process.returncode == 75, errors
    assert "there was nothing to save" in errors
    assert "Start it again with the same command." in errors
    assert not training.run.exists()


@pytest.mark.slow
def test_the_whole_group_gets_the_signal_and_no_worker_outlives_the_run(config):
    with Training(config, LONG, "data.workers=2") as training:
        training.wait_for("model.safetensors")
        group = training.process.pid
        os.killpg(group, signal.SIGTERM)
        errors = training.end()
        assert training.process.returncode == 75, errors
        assert not members(group)


@pytest.mark.slow
def test_workers_do_not_outlive_a_run_that_was_killed(config):
    with Training(config, LONG, "data.workers=2") as training:
        training.wait_for("model.safetensors")
        group = training.process.pid
        assert len(members(group)) >= 3
        training.process.kill()
        training.process.wait()
        # The workers still live, and do not hold the lock of the one that was killed.
        short = "stages=[{name: long, train: head, epochs: 1, lr: 1e-3}]"
        resumed = run_finetune("train", "--resume", training.run, short, "--force")
        assert resumed.exit_code == 0, resumed.output
        deadline = time.monotonic() + 60
        while members(group):
            assert time.monotonic() < deadline, members(group)
            time.sleep(0.5)


def members(group):
    """Return the processes of a group that still run."""
    listed = subprocess.run(["ps", "-eo", "pid,pgid,stat"], capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return [pid for pid, of_group, state in rows if int(of_group) == group and not state.startswith("Z")]


def test_the_second_signal_ends_at_once_with_130():
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == "SIGTERM"
        assert not stop.insisted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.insisted


def test_a_copy_that_a_container_passes_on_is_no_second_signal(monkeypatch):
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not stop.insisted
        monkeypatch.setattr(signals, "_SENT_ON", 0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGUSR1)


def test_a_step_that_does_not_end_is_given_up_after_the_grace(monkeypatch):
    monkeypatch.setattr(signals, "GRACE", 0.2)
    started = time.monotonic()
    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(30)
    assert time.monotonic() < started + 5
    assert not stop.insisted


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with StopSignals():
        pass
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]


@pytest.mark.slow
def test_two_signals_end_a_training_with_130_and_keep_the_checkpoint(config):
    # A step this long is still going on when the second signal comes.
    arguments = [LONG.replace("head", "all"), "data.batch_size=30", "data.image_size=512"]
    with Training(config, *arguments) as training:
        training.wait_for("checkpoints/00-000001-000000000.safetensors")
        training.process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
        training.process.send_signal(signal.SIGINT)
        errors = training.end()
    assert training.process.returncode in (130, 75), errors
    if training.process.returncode == 130:
        assert training.status()["state"] == "interrupted"
        assert "nothing new was saved" in errors
    assert training.status()["last_checkpoint"]


@pytest.mark.slow
def test_two_runs_do_not_share_a_directory(config):
    with Training(config, LONG) as training:
        training.wait_for("model.safetensors")
        second = run_finetune("train", "--resume", training.run)
        assert second.exit_code == 8
        assert f"in use by process {training.process.pid}" in second.stderr


# Sends itself Ctrl-C when a module begins to load.
INTERRUPTED_IMPORT = """
import os, signal, sys
class Finder:
    def find_spec(name, path, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
from finetune.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["finetune.cli", "typer.core", "rich.console", "pydantic", "torch"])
def test_ctrl_c_while_modules_load_is_one_line_and_130(module, config):
    program = INTERRUPTED_IMPORT.replace("MODULE", repr(module))
    command = [sys.executable, "-c", program, "train", config, "--run-dir", config.parent / "run"]
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=heed_ctrl_c)
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")
    assert not (config.parent / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", range(300, 3000, 300))
def test_ctrl_c_at_any_moment_of_the_start_shows_no_traceback(milliseconds, config):
    with Training(config) as training:
        time.sleep(milliseconds / 1000)
        training.process.send_signal(signal.SIGINT)
        training.end()
    assert training.process.returncode in (130, 75)


def test_both_ways_to_start_the_program_heed_early_signals():
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'finetune = "finetune.__main__:program"' in pyproject


def own_terminal():
    """Make the terminal on stdin that of the process, so that its keys send signals."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def shown_by(written):
    """Return the lines of a terminal to which this was written."""
    lines, row, column = [[]], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.|\n", written):
        if token == "\n":
            row += 1
            lines += [[]] if row == len(lines) else []
        elif token == "\r":
            column = 0
        elif token.endswith("2K") and len(token) > 1:
            lines[row] = []
        elif token.endswith("A") and len(token) > 1:
            row -= int(token[2:-1] or 1)
        elif len(token) == 1:
            lines[row] += " " * (column - len(lines[row]))
            lines[row][column : column + 1] = token
            column += 1
    return ["".join(line).rstrip() for line in lines]


@pytest.mark.slow
def test_a_stop_leaves_no_bar_on_the_terminal_and_is_no_error(config):
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "finetune", "train", config, "--run-dir", config.parent / "run", LONG]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, preexec_fn=own_terminal, env=environment
    )
    os.close(its)
    written, pressed = "", False
    while True:
        try:
            written += os.read(ours, 65536).decode()
        except OSError:  # Linux, when the other end is closed
            break
        if "images/s" in written and "━" in written and not pressed:
            os.write(ours, b"\x03")
            pressed = True
    os.close(ours)
    assert process.wait() == 75
    lines = shown_by(written)
    assert not [line for line in lines if "━" in line or "error" in line]
    assert [line for line in lines if line.startswith("Stopped by SIGINT and saved: stage long")]
