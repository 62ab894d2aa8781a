"""Packages that add to this one: each example of docs/extending.md, installed beside it."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_images

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
NAME = "finetune_extra"
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


@pytest.fixture
def package(tmp_path):
    """The package of the page, as pip leaves it: its modules, and its metadata beside them."""
    folder = tmp_path / "site" / NAME
    folder.mkdir(parents=True)
    files = re.findall(rf"^```python\n# {NAME}/(\w+\.py)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for name, text in files:
        (folder / name).write_text(text, encoding="utf-8")
    declared = re.search(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1]
    about = tmp_path / "site" / f"{NAME}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n", encoding="utf-8")
    groups = declared.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
    (about / "entry_points.txt").write_text(groups, encoding="utf-8")
    return tmp_path / "site"


def finetune(package, *arguments, cwd):
    code = "import sys; sys.path[:0] = sys.argv.pop(1).split(); from finetune.__main__ import main; main()"
    command = [sys.executable, "-c", code, f"{package} {ROOT}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.slow
def test_a_command_is_one_of_the_program(package, small_run, tmp_path):
    shown = finetune(package, "--help", cwd=tmp_path)
    assert "sizes" in shown.stdout
    done = finetune(package, "sizes", small_run, cwd=tmp_path)
    assert re.fullmatch(r"[\d,]+ parameters in 3 classes\n", done.stdout), done.stderr
    wrong = finetune(package, "sizes", "nothing", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.startswith("error: "), "Traceback" in wrong.stderr) == (
        8,
        True,
        False,
    )


SETTINGS = (
    "model.weights=builtin:glyphs",
    "model.arch=shufflenet_v2_x0_5",
    "data.workers=0",
    "data.image_size=32",
)


@pytest.mark.slow
def test_an_optimizer_a_heuristic_and_a_metric_train_and_are_recorded(package, tmp_path):
    """One training with all three; without the package it cannot be resumed, and is evaluated without."""
    draw_images(tmp_path / "photos", each=6)
    theirs = ("optimizer.name=signum", "lr_finder.pick=tenth", "monitor=val_kappa")
    stages = ("stages.frozen.lr=auto", "stages.frozen.epochs=1", "stages.unfrozen.epochs=1")
    done = finetune(package, "train", "photos", *SETTINGS, *theirs, *stages, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"accuracy +kappa", done.stdout)
    run = tmp_path / "run"
    started, report = (json.loads((run / name).read_text()) for name in ("started.json", "report.json"))
    assert started["environment"][NAME] == "1.0"
    assert {(one["group"], one["name"], one["package"], one["version"]) for one in started["packages"]} == {
        ("finetune.optimizers", "signum", NAME, "1.0"),
        ("finetune.heuristics", "tenth", NAME, "1.0"),
        ("finetune.metrics", "kappa", NAME, "1.0"),
    }
    found = json.loads((run / "lr_find-frozen.json").read_text())
    assert found["by"] == ["tenth"]
    assert found["lr"] == pytest.approx(found["curve"]["lr"][-1] / 10, rel=0.01)
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    best = report["best"]["val_kappa"]
    assert max(float(row["val_kappa"]) for row in rows) == best
    scored = json.loads(finetune(package, "evaluate", "run", "--json", cwd=tmp_path).stdout)
    assert scored["of_packages"] == {"kappa": pytest.approx(best)}
    nothing = tmp_path / "nothing"
    refused = finetune(nothing, "train", "run", "--resume", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.splitlines()) == (
        2,
        [
            "error: run was trained with signum (finetune.optimizers) of finetune_extra 1.0, which is not "
            "installed.",
            "Install it: pip install 'finetune_extra==1.0'",
        ],
    )
    without = finetune(nothing, "evaluate", "run", cwd=tmp_path)
    assert without.returncode == 0, without.stderr
    assert "warning: run was trained with kappa" in without.stdout
    assert finetune(nothing, "predict", "run", "photos", "--json", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_names_of_packages_are_listed_and_offered(package, tmp_path):
    listed = json.loads(finetune(package, "optimizers", "--json", cwd=tmp_path).stdout)
    assert listed[-1] == {
        "name": "signum",
        "update": "m ← b·m + (1−b)·g; w ← w − a·sign(m)",
        "source": "finetune_extra 1.0",
        "settings": {"momentum": 0.9},
        "decays": ["decoupled"],
    }
    schema = finetune(package, "schema", cwd=tmp_path).stdout
    assert all(f'"{name}"' in schema for name in ("signum", "tenth", "val_kappa"))
    keys = (
        "optimizer.name=signun",
        "lr_finder.pick=tent",
        "monitor=val_kapa",
        "early_stopping.metric=val_kap",
    )
    refused = finetune(package, "train", QUICKSTART, *keys, cwd=tmp_path)
    assert refused.returncode == 2
    for near, times in (("signum", 1), ("tenth", 1), ("val_kappa", 2)):
        assert refused.stderr.count(f"did you mean '{near}'?") == times
    keys = ("optimizer.name=signum", "optimizer.decay=l2")
    wrong = finetune(package, "train", QUICKSTART, *keys, cwd=tmp_path)
    assert "optimizer.decay: expected decoupled, got l2; signum has no other" in wrong.stderr


@pytest.mark.parametrize("kind", ["optimizers", "heuristics", "metrics"])
def test_an_example_is_as_long_as_the_page_says(kind):
    before, code = re.search(rf"(.*)# finetune_extra/{kind}\.py\n(.*?)```", PAGE, re.DOTALL).groups()
    said = re.findall(r" in (\d+) lines", before)[-1]
    assert int(said) == sum(1 for line in code.splitlines() if line)


@pytest.mark.slow
def test_a_network_has_groups_and_is_trained(package, tmp_path):
    pytest.importorskip("timm")
    draw_images(tmp_path / "photos", each=6)
    keys = ("model.arch=timm:resnet6", "model.weights=none", "data.workers=0", "data.image_size=32")
    stages = (
        "stages.frozen.lr=1e-3",
        "stages.frozen.epochs=1",
        "stages.unfrozen.epochs=1",
        "--run-dir",
        "run",
    )
    done = finetune(package, "train", "photos", *keys, *stages, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "late backbone" in done.stdout
    assert finetune(package, "predict", "run", "photos", "--json", cwd=tmp_path).returncode == 0
    refused = finetune(tmp_path / "nothing", "predict", "run", "photos", cwd=tmp_path)
    assert refused.returncode == 2
    assert "run was trained with networks (finetune.architectures) of finetune_extra 1.0" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_broken_package_is_named_and_leaves_the_program_alone(package, tmp_path):
    (package / NAME / "commands.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    shown = finetune(package, "--help", cwd=tmp_path)
    assert "lr-find" in shown.stdout
    assert "warning: the command sizes of the package finetune_extra cannot be loaded" in shown.stderr
    assert "Traceback" not in shown.stderr
