"""A sweep: its trials are neither lost nor repeated, whoever is killed when, and what comes of them."""

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from conftest import run_finetune

from finetune.commands.sweep.folder import SweepFolder
from finetune.commands.sweep.local import Failures, end_trial
from finetune.commands.sweep.study import SweepStudy
from finetune.commands.sweep.sweep import finish
from finetune.commands.sweep.trial import TrialEnd
from finetune.config.load import load_config
from finetune.config.load_sweep import load_sweep
from finetune.display import Display
from finetune.errors import CheckpointError, DataError

BASE = """\
precision: float32
data: {{path: "{path}", image_size: 32, batch_size: 8, augment: none, workers: 0}}
model: {{arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {{hidden: [16]}}}}
stages:
  - {{name: frozen, train: head, epochs: {epochs}, lr: 1e-2}}
"""
SPACE = """\
space:
  stages.frozen.lr: {log: [1e-3, 1e-1]}
  model.head.hidden: [[16], [8]]
"""


def write_sweep(folder, text, *, path="photos", epochs=1):
    (folder / "base.yaml").write_text(BASE.format(path=path, epochs=epochs))
    (folder / "s.yaml").write_text("base: base.yaml\n" + text)
    return folder / "s.yaml"


def begin(folder, text):
    """Begin a sweep of which nothing is trained."""
    place = SweepFolder(folder / "found")
    plan = load_sweep(write_sweep(folder, text))
    place.begin(plan)
    return lambda: SweepStudy(place, plan)


def end_all(open_study, most):
    """Take and end trials, each as if by a process of its own; return their values."""
    values = []
    while (claim := open_study().claim(most)) is not None:
        values.append(dict(claim.values))
        end_trial(open_study(), claim, TrialEnd("done", 0.5 + claim.number / 100, {}))
    return values


def test_two_processes_never_hold_one_trial_and_an_interrupted_one_is_taken_up(tmp_path):
    open_study = begin(tmp_path, "sampler: random\n" + SPACE)
    first, second = open_study().claim(2), open_study().claim(2)
    assert (first.number, second.number) == (0, 1)
    assert open_study().claim(2) is None  # both are held
    first.lock.release()  # as the system does when a process is killed
    again = open_study().claim(2)
    assert (again.number, again.resumed, again.values) == (0, True, first.values)
    assert [record.status for record in open_study().records()] == ["running", "running"]


def test_what_a_trial_draws_depends_on_its_number_and_not_on_who_was_killed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    values = end_all(begin(tmp_path / "a", "sampler: random\n" + SPACE), 5)
    assert len({str(one) for one in values}) == 5
    assert values[0] == {"stages.frozen.lr": 0.01, "model.head.hidden": [16]}  # the base itself
    open_study = begin(tmp_path / "b", "sampler: random\n" + SPACE)
    killed = open_study()
    for _ in range(3):
        claim = killed.claim(5)
        end_trial(killed, claim, TrialEnd("failed", None, {"error": "of another result"}))
    killed._study.ask()  # killed before anything of trial 3 was drawn
    assert end_all(open_study, 5) == values[3:]


def test_a_grid_has_every_setting_once_though_several_share_it(tmp_path):
    text = "sampler: grid\n" + SPACE.replace("1e-1]", "1e-1], points: 3")
    values = end_all(begin(tmp_path, text), None)
    assert len(values) == 6
    assert {(one["stages.frozen.lr"], len(one["model.head.hidden"])) for one in values} == {
        (0.001, 1),
        (0.01, 1),
        (0.1, 1),
    }


def test_a_sampler_that_learns_goes_where_trials_were_good(tmp_path):
    study, rates = begin(tmp_path, "sampler: {name: tpe, startup: 6}\n" + SPACE)(), []
    while (claim := study.claim(16)) is not None:
        rates.append(claim.values["stages.frozen.lr"])
        end_trial(study, claim, TrialEnd("done", -abs(rates[-1] - 0.003), {}))
    early, late = rates[1:6], rates[-5:]
    assert sum(abs(rate - 0.003) for rate in late) < sum(abs(rate - 0.003) for rate in early) / 2


def test_three_failures_in_a_row_for_one_reason_end_a_sweep():
    same, other = (TrialEnd("failed", None, {"error": why, "exit_code": 3}) for why in ("no images", "else"))
    failures = Failures()
    for end in (same, same, other, same, same, TrialEnd("done", 1.0, {}), same, same):
        failures.add(end)
    with pytest.raises(DataError, match="3 trials in a row failed with the same error: no images"):
        failures.add(same)


def test_a_journal_holds_the_trials_that_sqlite_would(tmp_path):
    space = "sampler: {name: tpe, startup: 2}\n" + SPACE
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    expected = end_all(begin(tmp_path / "a", space), 5)
    open_study = begin(tmp_path / "b", space + "study: journal\n")
    first, second = open_study().claim(2), open_study().claim(2)
    assert open_study().claim(2) is None  # both are held
    first.lock.release()
    second.lock.release()
    assert end_all(open_study, 5) == expected
    assert not (tmp_path / "b/found/study.db").exists()
    with open(tmp_path / "b/found/study.jsonl", "ab") as journal:
        journal.write(b"torn\n" * 2)
    with pytest.raises(CheckpointError, match=r"study\.jsonl cannot be used as the file of a study"):
        open_study()


def test_processes_that_begin_a_sweep_at_once_begin_it_once(tmp_path):
    plan = load_sweep(write_sweep(tmp_path, SPACE))
    for number in range(20):
        place, barrier = SweepFolder(tmp_path / str(number)), Barrier(4)

        def begin_together(place=place, barrier=barrier):
            barrier.wait()
            return place.is_foreign, place.begin(plan)

        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(begin_together) for _ in range(4)]
        assert sorted(one.result() for one in done) == [(False, False)] * 3 + [(False, True)]


def test_a_worker_that_ends_writes_the_page_while_no_other_does(tmp_path):
    study = begin(tmp_path, SPACE)()
    end_trial(study, study.claim(1), TrialEnd("done", 0.5, {}))
    with ThreadPoolExecutor(1) as pool:
        with study.folder.locked():
            done = pool.submit(finish, study, Display(io.StringIO(), quiet=True))
            with pytest.raises(TimeoutError):
                done.result(3)
            assert not (tmp_path / "found/report.html").exists()
        assert done.result().best.number == 0
    assert (tmp_path / "found/report.html").exists()


def test_a_line_of_a_journal_that_was_not_written_whole_is_passed_over(tmp_path):
    open_study = begin(tmp_path, "sampler: random\nstudy: journal\n" + SPACE)
    end_trial(open_study(), open_study().claim(3), TrialEnd("done", 0.5, {}))
    journal, other = tmp_path / "found/study.jsonl", open_study()
    whole = journal.read_bytes()
    for cut in (1, 20, len(whole.splitlines(keepends=True)[-1]) - 1):
        journal.write_bytes(whole + whole[-5000:].splitlines(keepends=True)[-1][:cut])
        assert [record.status for record in open_study().records()] == ["done"]
    end_trial(other, other.claim(3), TrialEnd("done", 0.6, {}))  # one that had read it before goes on as well
    assert [record.value for record in open_study().records()] == [0.5, 0.6]
    for line in journal.read_text().splitlines():
        json.loads(line)


@pytest.mark.filterwarnings("ignore:The existing lock file")  # older releases of Optuna warn, newer ones log
def test_a_process_killed_while_it_wrote_into_a_journal_does_not_keep_it(tmp_path, monkeypatch):
    monkeypatch.setattr("finetune.commands.sweep.journal._GRACE", 3)
    monkeypatch.chdir(tmp_path)
    place, plan = SweepFolder(Path("found")), load_sweep(write_sweep(tmp_path, "study: journal\n" + SPACE))
    place.begin(plan)
    study = SweepStudy(place, plan)
    os.symlink(os.path.abspath("found/study.jsonl"), "found/study.jsonl.lock")  # as Optuna's lock is
    assert study.claim(1).number == 0
    assert not os.path.lexists("found/study.jsonl.lock")


def test_a_study_that_is_damaged_is_said_to_be_so(tmp_path):
    open_study = begin(tmp_path, SPACE)
    (tmp_path / "found/study.db").write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(CheckpointError, match="cannot be used as the file of a study"):
        open_study()


def test_a_study_whose_file_cannot_be_written_is_said_to_be_so(tmp_path):
    study = begin(tmp_path, SPACE)()
    claim = study.claim(1)
    database = sqlite3.connect(tmp_path / "found/study.db")
    database.execute("DROP TABLE trial_user_attributes")
    database.commit()
    with pytest.raises(
        CheckpointError, match=r"study\.db cannot be used as the file of a study: no such table"
    ):
        study.note(claim.number, seconds=1.0)


@pytest.fixture(scope="module")
def swept(images, tmp_path_factory):
    """Return the folder of a sweep of two trials, and what it printed."""
    folder = tmp_path_factory.mktemp("sweep")
    file = write_sweep(folder, "trials: 2\nsampler: random\n" + SPACE, path=images)
    result = run_finetune("sweep", file, "--sweep-dir", folder / "found", "--json")
    assert result.exit_code == 0, result.output
    return folder / "found", [json.loads(line) for line in result.stdout.splitlines()]


def test_every_trial_is_a_run_and_is_told_as_it_ends(swept):
    folder, (*told, last) = swept
    assert told == last["trials"]
    assert [trial["number"] for trial in told] == [0, 1]
    for trial in told:
        assert trial["status"] == "done"
        report = json.loads((Path(trial["run_dir"]) / "report.json").read_text())
        assert trial["value"] == report["best"]["val_accuracy"]
        config = load_config(Path(trial["run_dir"]) / "config.yaml")
        assert config.stages[0].lr.last == trial["params"]["stages.frozen.lr"]
        assert list(config.model.head.hidden) == trial["params"]["model.head.hidden"]
    shown = json.loads(run_finetune("sweep", folder, "--json").stdout)
    assert shown == last


def test_the_best_trial_becomes_a_config_of_its_own(swept, tmp_path):
    folder, (*_, last) = swept
    best = last["trials"][last["best"]]
    assert best["value"] == max(trial["value"] for trial in last["trials"])
    result = run_finetune("sweep", folder, "--best", "--write", tmp_path / "best.yaml")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "best.yaml").read_text()
    assert text.startswith(f"# Trial {best['number']} of the sweep")
    plan = SweepFolder(folder).plan()
    assert load_config(tmp_path / "best.yaml") == plan.config(best["params"])
    again = run_finetune("sweep", folder, "--write", tmp_path / "best.yaml")
    assert (again.exit_code, "there is such a file" in again.output) == (2, True)


def test_a_sweep_is_shown_and_its_page_links_the_runs(swept):
    folder, (*_, last) = swept
    output = run_finetune("sweep", folder).output
    assert "2 trials: 2 done" in output
    assert f"best    trial {last['best']}, val_accuracy" in output
    page = (folder / "report.html").read_text()
    assert page.count('<a href="trials/000') == 2
    assert page.count("<svg") == 2  # wide and narrow
    assert "stages.frozen.lr" in page


def test_a_sweep_is_not_mixed_with_another_one(swept, images):
    folder, _ = swept
    file = folder.parent / "s.yaml"
    unasked = run_finetune("sweep", file, "--sweep-dir", folder)
    assert (unasked.exit_code, "Add --resume to go on" in unasked.output) == (8, True)
    other = folder.parent / "other.yaml"
    other.write_text(file.read_text().replace("1e-1", "2e-1"))
    result = run_finetune("sweep", other, "--sweep-dir", folder, "--resume")
    assert result.exit_code == 8
    assert "holds a sweep of another space" in result.output
    assert run_finetune("sweep", folder / "trials/0000", "--best").exit_code == 2


def test_data_that_no_trial_can_read_end_a_sweep_after_three(tmp_path):
    file = write_sweep(tmp_path, "trials: 9\n" + SPACE)
    result = run_finetune("sweep", file, "--sweep-dir", "found")
    assert result.exit_code == 3, result.output
    assert "3 trials in a row failed with the same error: no such directory: " in result.output
    statuses = [t["status"] for t in json.loads(run_finetune("sweep", "found", "--json").stdout)["trials"]]
    assert statuses == ["failed"] * 3


@pytest.mark.slow
def test_several_seeds_are_several_runs_and_the_value_is_their_mean(images, tmp_path):
    file = write_sweep(tmp_path, "trials: 1\nseeds: 2\nmonitor: val_loss\n" + SPACE, path=images)
    result = run_finetune("sweep", file, "--sweep-dir", "found", "--json")
    assert result.exit_code == 0, result.output
    trial = json.loads(result.stdout.splitlines()[0])
    reports = [json.loads((Path(run) / "report.json").read_text()) for run in trial["runs"]]
    losses = [report["best"]["val_loss"] for report in reports]
    assert trial["value"] == pytest.approx(sum(losses) / 2)
    assert trial["standard_error"] == pytest.approx(abs(losses[0] - losses[1]) / 2)
    splits = {(Path(run) / "split.csv").read_bytes() for run in trial["runs"]}
    assert len(splits) == 1


def start(*arguments, cwd, environment=None):
    return subprocess.Popen(
        [sys.executable, "-m", "finetune", "sweep", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | (environment or {}),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(found, process=None):
    """Wait until something is there."""
    end = time.monotonic() + 120
    while not found():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def models(folder):
    return [path.read_bytes() for path in sorted(folder.glob("trials/*/model.safetensors"))]


@pytest.mark.slow
def test_a_sweep_of_two_workers_is_killed_and_stopped_and_loses_and_repeats_nothing(images, tmp_path):
    text = "trials: 4\nsampler: random\n" + SPACE.replace("  model", "  data.augment: [light]\n  model")
    file = write_sweep(tmp_path, text, path=images, epochs=12)
    found, whole = tmp_path / "found", tmp_path / "whole"
    process = start(file, "--sweep-dir", "found", "--workers", 2, cwd=tmp_path)
    wait_for(lambda: len(list(found.glob("trials/*/history.csv"))) == 2, process)
    workers = [int(path.read_text().split()[1]) for path in found.glob("trials/000[01]/.lock")]
    process.kill()
    process.communicate()
    for worker in workers:  # they end with their parent
        wait_for(lambda worker=worker: not Path(f"/proc/{worker}/cmdline").exists())
    process = start(found, "--resume", cwd=tmp_path)
    wait_for(lambda: (found / "trials/0002/history.csv").exists(), process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert process.returncode == 75, output
    assert "No trial is lost.\nGo on with: finetune sweep" in output
    assert run_finetune("sweep", found, "--resume").exit_code == 0
    assert run_finetune("sweep", file, "--sweep-dir", whole).exit_code == 0
    ours, theirs = (
        [trial["params"] for trial in json.loads(run_finetune("sweep", folder, "--json").stdout)["trials"]]
        for folder in (found, whole)
    )
    assert ours == theirs
    assert len(ours) == 4
    assert models(found) == models(whole)


@pytest.mark.slow
def test_a_trial_that_learns_nothing_is_ended_and_its_numbers_are_written_down(images, tmp_path):
    text = (
        "trials: 4\nsampler: grid\npruner: {name: median, least: 2, margin: 1, after: 2}\n"
        "space:\n  stages.frozen.lr: [1e-2, 2e-2, 1e-7, 3e-2]\n"
    )
    file = write_sweep(tmp_path, text, path=images, epochs=6)
    result = run_finetune("sweep", file, "--sweep-dir", "found", "--json")
    trials = json.loads(result.stdout.splitlines()[-1])["trials"]
    assert [trial["status"] for trial in trials] == ["done", "done", "pruned", "done"], result.output
    (line,) = [json.loads(line) for line in Path("found/pruning.jsonl").read_text().splitlines()]
    assert (line["trial"], line["pruned"], set(line["others"])) == (2, True, {"0", "1"})
    assert line["bar"] - line["value"] > line["margin"]
    assert trials[2]["reason"].startswith(f"{line['value']:.4f} after epoch {line['epoch']}, the median of")
    # What was ended can be trained to its end after all.
    assert run_finetune("train", trials[2]["run_dir"], "--resume").exit_code == 0


CLUSTER = """
import os, subprocess, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

head = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
node = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
command = [sys.executable, "-m", "finetune", "sweep", "s.yaml", "--sweep-dir", "found"]
sweep = subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": cluster.address})
while len(list(Path("found/trials").glob("*/history.csv"))) < 2 and sweep.poll() is None:
    time.sleep(0.1)
cluster.remove_node(node, allow_graceful=False)
code = sweep.wait()
cluster.shutdown()
sys.exit(code)
"""


@pytest.mark.slow
def test_a_sweep_on_a_ray_cluster_outlives_one_of_its_nodes(images, tmp_path):
    pytest.importorskip("ray", reason="needs ray, which is no part of the test extra: 240 MB")
    text = "trials: 4\nsampler: random\nengine: ray\n" + SPACE.replace(
        "  model", "  data.augment: [light]\n  model"
    )
    write_sweep(tmp_path, text, path=images, epochs=20)
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads(run_finetune("sweep", tmp_path / "found", "--json").stdout)["trials"]
    assert [trial["status"] for trial in trials] == ["done"] * 4
