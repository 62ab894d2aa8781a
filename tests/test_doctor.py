"""What `finetune doctor` finds, what it says to do about it, and what it keeps to itself."""

import io
import json
import sys
from pathlib import Path

import pytest
from conftest import run_finetune

from finetune.commands.doctor import facts, self_test
from finetune.commands.doctor.doctor import Checkup, Devices, show, show_verdict, with_self_test
from finetune.commands.doctor.privacy import shown_place, without_names
from finetune.commands.doctor.trouble import Place, Resources, Trouble, troubles_of
from finetune.display import Display

ROOT = Path(__file__).parents[1]
FINE = Resources(cores=8, quota=None, threads=8, memory=2**34, shared_memory=2**33)

PARTS = {
    "places": [Place("the cache", "~/c", False, 10**6)],
    "devices": Devices("cuda", ("A GPU",), "bfloat16", True, 8),
    "weights": ["resnet18"],
    "troubles": [Trouble("the cache cannot be written: ~/c.", "Make the folder yours.")],
}


@pytest.fixture(autouse=True)
def jane(tmp_path, monkeypatch):
    """A user with a name and a home, on a machine with a name."""
    for name, value in {
        "HOME": tmp_path / "jane",
        "LOGNAME": "jane",
        "XDG_CACHE_HOME": tmp_path / "jane/cache",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("socket.gethostname", lambda: "secret-box.example.org")
    (tmp_path / "jane").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "jane"


def test_a_sound_machine_has_no_trouble():
    assert list(troubles_of(FINE, [Place("x", "~/x", True, 2**40)])) == []


@pytest.mark.parametrize(
    ("resources", "places", "what", "fix", "code"),
    [
        ({"threads": 16}, [], "torch computes in 16 threads", "OMP_NUM_THREADS=8", 0),
        ({"quota": 2.0}, [], "this process has the time of 2 cores", "OMP_NUM_THREADS=2", 0),
        ({"quota": 0.5, "threads": 2}, [], "the time of 0.5 cores", "OMP_NUM_THREADS=1", 0),
        ({"memory": 10**9}, [], "1.0 GB of memory is little", "data.batch_size", 0),
        ({"shared_memory": 64 * 2**20}, [], "67.1 MB of shared memory (/dev/shm)", "--shm-size=8g", 0),
        ({}, [Place("the cache", "~/c", False, 2**40, variable="X")], "the cache cannot be written", "X", 0),
        (
            {},
            [Place("files", "/t", False, 2**40, needed=True, variable="TMPDIR")],
            "cannot be written",
            "TMPDIR",
            8,
        ),
        ({}, [Place("the cache", "~/c", True, 10**6)], "1.0 MB of disk left", "--run-dir", 0),
        ({}, [Place("files", "/t", True, 10**6, needed=True)], "1.0 MB of disk left", "Free some", 6),
    ],
)
def test_each_trouble_says_how_to_fix_it(resources, places, what, fix, code):
    (trouble,) = troubles_of(Resources(**{**vars(FINE), **resources}), places)
    assert what in trouble.what
    assert fix in trouble.fix
    assert trouble.exit_code == code


def test_the_time_of_a_container_is_read_from_either_version_of_control_groups(tmp_path):
    new, quota, period, none = (tmp_path / name for name in ("max", "quota", "period", "none"))
    new.write_text("150000 100000\n")
    quota.write_text("50000\n")
    period.write_text("100000\n")
    assert facts.cpu_quota(new, (quota, period)) == 1.5
    assert facts.cpu_quota(none, (quota, period)) == 0.5
    assert facts.cpu_quota(none, (none, none)) is None
    for text in ("-1\n", "max\n"):
        quota.write_text(text)
        assert facts.cpu_quota(none, (quota, period)) is None


def test_libraries_of_other_versions_are_named(monkeypatch):
    monkeypatch.setattr(
        facts, "requires", lambda name: ["numpy>=99", "pillow>=1", "nosuch>=2", 'timm>=99; extra == "x"']
    )
    troubles = list(facts.unmet_requirements())
    assert [trouble.exit_code for trouble in troubles] == [7] * len(troubles)
    assert "is not numpy>=99, which finetune needs" in troubles[0].what
    assert troubles[0].fix == "Install it: pip install 'numpy>=99'"
    assert "nosuch is not installed, and finetune needs it (nosuch>=2)." in troubles[1].what


def test_names_of_people_and_machines_are_left_out(jane):
    text = f"{jane}/photos on secret-box by jane, janet, {jane}t"
    assert without_names(text) == f"~/photos on … by …, janet, {jane}t"
    assert shown_place(jane / "a/b") == "~/a/b"
    assert shown_place(Path("/scratch/jane/torch")) == "…/torch"


def test_what_is_printed_holds_no_private_name(monkeypatch):
    monkeypatch.setenv("TORCH_HOME", "/scratch/jane-doe/torch")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    checkup = Checkup(facts.versions(), facts.system(), facts.variables(), FINE, **PARTS)
    stream = io.StringIO()
    show(checkup, Display(stream))
    show_verdict(checkup, Display(stream))
    shown = stream.getvalue()
    assert "device           cuda: A GPU\n" in shown
    assert "folder           the cache: ~/c, 1.0 MB free, not writable\n" in shown
    assert shown.splitlines()[-1] == "training works here, with 1 warning"
    found = {**checkup.to_dict(), "places": [vars(place) for place in facts.places()]}
    assert (found["ok"], found["exit_code"], found["self_test"]) == (True, 0, None)
    assert all(f"`{key}`" in (ROOT / "docs/doctor.md").read_text(encoding="utf-8") for key in found)
    for text in (json.dumps(found), shown):
        assert not {word for word in ("jane", "secret", "scratch") if word in text}


def test_a_library_that_cannot_be_imported_is_an_error_of_the_machine(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    result = run_finetune("doctor")
    assert result.exit_code == 7
    assert "error: torchvision is installed, and cannot be imported: " in result.stdout
    assert "\n  Install versions that belong together: pip install" in result.stdout
    assert result.stdout.endswith("training would not work here\n")


def test_what_ends_the_self_test_ends_the_doctor(monkeypatch):
    monkeypatch.setattr(self_test, "_CONFIG", "data: {path: nowhere}\n")
    trouble = self_test.run_self_test()
    assert trouble.what.startswith("the self-test ended: ")
    before = Checkup({}, {}, {}, FINE, **PARTS)
    assert (before.exit_code, with_self_test(before, trouble).exit_code) == (0, 3)


@pytest.mark.slow
def test_the_self_test_trains_and_predicts():
    found = self_test.run_self_test()
    assert found.accuracy > 0.3  # chance is 0.1
    result = run_finetune("doctor", "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (0, True), result.output
    assert not {word for word in ("jane", "secret") if word in result.stdout}
