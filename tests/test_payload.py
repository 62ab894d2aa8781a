"""Files of a run that were replaced by pickles with a payload: refused, and nothing is executed."""

import os
import pickle
import shutil

import pytest
import torch
from conftest import run_finetune


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


FILES = ("started.json", "status.json", "config.yaml", "classes.json", "split.csv", "files.csv", "model.json")


@pytest.fixture
def killed(small_run, tmp_path, short_waits):
    """Return a run whose last epoch is missing."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "report.json").unlink()
    (run / "status.json").write_text('{"state": "running"}')
    return run


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", [*FILES, "model.safetensors", "checkpoints"])
def test_nothing_of_a_run_is_unpickled(name, zipped, killed, tmp_path):
    trap = tmp_path / "executed"
    for path in (killed / "checkpoints").iterdir() if name == "checkpoints" else [killed / name]:
        if zipped:
            torch.save(Payload(trap), path)
        else:
            path.write_bytes(pickle.dumps(Payload(trap)))
    codes = {
        run_finetune("train", "--resume", killed).exit_code,
        run_finetune("evaluate", killed).exit_code,
    }
    assert not trap.exists()
    assert codes <= {0, 2, 3, 5, 8}  # whichever of the two reads the file refuses it
    if name in ("model.safetensors", "checkpoints", "started.json", "model.json"):
        assert codes & {2, 5, 8}


def test_the_payload_is_one(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()
