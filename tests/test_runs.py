"""The list of runs: found wherever they lie, sorted, filtered, and never stopped by a damaged one."""

import json
import shutil

import pytest
from conftest import run_finetune


@pytest.fixture(scope="module")
def folder(small_run, tmp_path_factory):
    """Return a folder of runs: a good one, one that failed, one further down, and others that are none."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(small_run, root / "good")
    shutil.copytree(small_run, root / "deeper" / "later")
    status = json.loads((root / "good" / "status.json").read_text())
    later = status | {"time": "2099-01-01T00:00:00+0000"}
    (root / "deeper" / "later" / "status.json").write_text(json.dumps(later))
    report = json.loads((root / "good" / "report.json").read_text())
    report["val"]["accuracy"] = 0.25
    (root / "good" / "report.json").write_text(json.dumps(report))
    shutil.copytree(small_run, root / "failed")
    (root / "failed" / "status.json").write_text(json.dumps(status | {"state": "failed"}))
    shutil.copytree(small_run, root / "damaged")
    (root / "damaged" / "status.json").write_text("[" * 100_000)
    (root / "damaged" / "started.json").write_text("{")
    (root / "notes").mkdir()
    return root


def listed(folder, *arguments):
    result = run_finetune("runs", folder, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def names(folder, *arguments):
    return [run["run_dir"].removeprefix(f"{folder}/") for run in listed(folder, *arguments)]


def test_runs_are_found_wherever_they_lie_the_newest_first(folder):
    assert names(folder)[0] == "deeper/later"
    assert set(names(folder)) == {"good", "deeper/later", "failed", "damaged"}


def test_what_is_known_of_a_run(folder, images):
    good = next(run for run in listed(folder) if run["run_dir"].endswith("good"))
    assert (good["state"], good["accuracy"], good["epochs"]) == ("done", 0.25, 3)
    assert (good["arch"], good["data"]) == ("shufflenet_v2_x0_5", str(images))
    assert good["seconds"] > 0
    failed = next(run for run in listed(folder) if run["run_dir"].endswith("failed"))
    assert (failed["state"], failed["accuracy"]) == ("failed", None)


def test_a_damaged_run_is_listed_without_what_is_not_known(folder):
    damaged = next(run for run in listed(folder) if run["run_dir"].endswith("damaged"))
    assert (damaged["state"], damaged["arch"], damaged["when"]) == ("unknown", "", "")


def test_they_are_sorted_and_filtered(folder):
    assert names(folder, "--sort", "accuracy")[:2] == ["deeper/later", "good"]
    assert names(folder, "--sort", "name") == ["damaged", "deeper/later", "failed", "good"]
    assert names(folder, "--state", "failed") == ["failed"]
    assert names(folder, "--filter", "GOO") == ["good"]
    assert names(folder, "--filter", "l*r") == ["deeper/later"]
    assert len(names(folder, "--filter", "shufflenet")) == 3


def test_they_are_shown_in_a_table(folder):
    lines = run_finetune("runs", folder).stdout.splitlines()
    assert lines[-1] == "4 runs"
    assert any("good" in line and "25.00%" in line for line in lines)


def test_nothing_is_no_error_and_no_folder_is(folder, tmp_path):
    assert (
        f"no runs in {tmp_path}"
        in run_finetune("runs", tmp_path).stderr + run_finetune("runs", tmp_path).stdout
    )
    result = run_finetune("runs", tmp_path / "nowhere")
    assert result.exit_code == 3
    assert "no such folder" in result.stderr
