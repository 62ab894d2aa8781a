import json
import os
import subprocess
import sys

import pytest
import torch

from finetune.errors import CheckpointError, RunError
from finetune.runs import CONFIG, EVENTS, SPLIT, WEIGHTS, create_run, open_run


def new_run(tmp_path):
    return create_run(tmp_path / "run", parent=tmp_path, name="pets")


def test_an_unnamed_run_is_called_after_its_config_and_never_reused(tmp_path):
    runs = []
    for _ in range(3):
        with create_run(None, parent=tmp_path / "runs", name="pets") as run:
            run.write_config("seed: 1\n")
        runs.append(run.directory)
    assert len(set(runs)) == 3
    assert all(directory.name.startswith("pets-2") for directory in runs)


def test_a_run_that_wrote_nothing_leaves_no_directory(tmp_path):
    with new_run(tmp_path) as run:
        assert run.directory.exists()
    assert not run.directory.exists()


def test_results_are_not_overwritten_without_overwrite(tmp_path):
    with new_run(tmp_path) as run:
        run.write_config("seed: 1\n")
    with pytest.raises(RunError, match=r"is not empty; results are not overwritten without --overwrite"):
        new_run(tmp_path)
    assert (run / CONFIG).read_text() == "seed: 1\n"


def test_overwrite_moves_the_old_run_aside(tmp_path):
    with new_run(tmp_path) as run:
        run.write_config("seed: 1\n")
    with create_run(tmp_path / "run", parent=tmp_path, name="pets", overwrite=True) as again:
        again.write_config("seed: 2\n")
    (old,) = tmp_path.glob("run.old-*")
    assert (old / CONFIG).read_text() == "seed: 1\n"
    assert (again / CONFIG).read_text() == "seed: 2\n"


def test_a_directory_is_held_by_one_process_at_a_time(tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from finetune.errors import RunError\n"
        "from finetune.runs import create_run\n"
        "try:\n"
        "    create_run(Path(sys.argv[1]), parent=Path('.'), name='x')\n"
        "except RunError as error:\n"
        "    print(error)\n"
    )
    with new_run(tmp_path) as run:
        command = [sys.executable, "-c", program, str(run.directory)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"is in use by process {os.getpid()}" in output
        run.write_config("seed: 1\n")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"Cannot write the run directory .*file/run: Not a directory"):
        create_run(tmp_path / "file" / "run", parent=tmp_path, name="x")


HOSTILE = (
    "=cmd()",
    "+1",
    "-rf",
    "@x",
    "'quoted",
    "a,b",
    'say "x"',
    "new\nline",
    "tab\t",
    "caf\udce9",
    "<b>",
    " ",
)


def test_the_split_comes_back_as_it_was_written(tmp_path):
    header = ("image", "split", "class", "metadata.site", "metadata.class")
    rows = [(f"{name}/{name}.jpg", "train", name, name, "") for name in HOSTILE]
    with new_run(tmp_path) as run:
        run.write_beginning(class_names=["a"], split=(header, rows), files={}, started={})
        read = open_run(run.directory).read_split()
        assert [(*row[:3], *row.metadata) for row in read] == rows
        for line in (run / SPLIT).read_text(errors="surrogateescape").splitlines()[1:]:
            assert not line.startswith(("=", "+", "-", "@"))


def test_the_model_comes_back_as_it_was_saved(tmp_path):
    state = {"a": torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    with new_run(tmp_path) as run:
        run.save_model(state, {"format": 1})
        loaded, description = run.load_model()
    assert description == {"format": 1}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_a_damaged_model_is_an_error_and_not_a_model(tmp_path):
    with new_run(tmp_path) as run:
        run.save_model({"a": torch.ones(100)}, {"format": 1})
        whole = (run / WEIGHTS).read_bytes()
        (run / WEIGHTS).write_bytes(whole[:-10])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
            run.load_model()


def test_what_is_no_run_is_refused_and_a_run_nearby_named(tmp_path):
    with new_run(tmp_path) as run:
        run.save_model({"a": torch.ones(1)}, {"format": 1})
    beside = tmp_path / "photos"
    beside.mkdir()
    with pytest.raises(
        RunError, match=r"is not a finished run: it has no model\.json\.\n.*for instance .*run\."
    ):
        open_run(beside).load_model()


def test_events_are_one_json_object_a_line(tmp_path):
    with new_run(tmp_path) as run:
        run.append_events([{"event": "stage", "stage": "frozen"}])
        run.append_events([{"event": "done"}, {"event": "done"}])
        lines = (run / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["stage", "done", "done"]


def test_events_are_read_back_but_for_a_torn_line(tmp_path):
    with new_run(tmp_path) as run:
        run.append_events([{"event": "step", "loss": 0.5}, {"event": "done"}])
    with open(run / EVENTS, "a") as file:
        file.write('{"event": "st')
    assert run.read_events() == [{"event": "step", "loss": 0.5}, {"event": "done"}]
