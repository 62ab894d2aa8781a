"""The comparison with other tools: what it prints, repeats and leaves out. No tool trains here."""

import json
import subprocess
import sys
from pathlib import Path

import peers
import pytest
from peer_recipes import PEERS, Peer

PROGRAM = Path(peers.__file__)


def outcome(right: list[int], cpu: float) -> dict[str, object]:
    return {"right": right, "cpu": cpu, "version": "1.2"}


def test_a_table_has_accuracy_and_time_of_each_tool_and_a_dash_where_none_ended() -> None:
    runs = {
        "finetune": [outcome([1, 1, 1, 0], 10), outcome([1, 1, 1, 1], 30)],
        "other": [outcome([1, 0, 0, 0], 50)],
        "slow": [],
    }
    assert list(peers.table("ants", runs))[2:] == [
        "| finetune (1.2) | 2 | 87.5% (75.0 – 100.0) | 20 | 1.00 |",
        "| other (1.2) | 1 | 25.0% (25.0 – 25.0) | 50 | 2.50 |",
        "| slow | 0 | – | – | – |",
    ]


def test_a_table_without_finetune_has_no_ratio() -> None:
    assert list(peers.table("ants", {"other": [outcome([1], 50)]}))[-1].endswith("| 50 | – |")


def test_a_training_in_the_log_is_not_repeated_and_another_one_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    task = {"name": "timm", "folder": "ants", "setting": {"seed": 0}}
    log.write_text(json.dumps({"task": task, "outcome": {"cpu": 3}}) + "\n")
    assert peers.recorded(task, log) == {"cpu": 3}
    assert peers.recorded(task | {"setting": {"seed": 1}}, log) is None
    assert peers.recorded(task, tmp_path / "none") is None


def test_a_tool_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PEERS, "nobody", Peer("no_such_package", lambda folder, setting: {}))
    assert not peers.importable("nobody", sys.executable)
    assert "nobody is left out" in capsys.readouterr().out
    monkeypatch.setitem(PEERS, "somebody", Peer("json", lambda folder, setting: {}))
    assert peers.importable("somebody", sys.executable)


def test_help_names_every_tool() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--help"], capture_output=True, text=True, check=True)
    assert all(f"- {name}:" in done.stdout for name in PEERS)


def test_a_version_is_found_although_the_distribution_has_another_name() -> None:
    import finetune

    assert peers.version_of("finetune") == finetune.__version__
