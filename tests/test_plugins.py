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


KINDS = ["commands", "networks", "optimizers", "heuristics", "metrics"]


@pytest.mark.parametrize("kind", KINDS)
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


def test_contributing_counts_the_lines_of_the_same_examples():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for kind in KINDS:
        before = PAGE.partition(f"# finetune_extra/{kind}.py")[0]
        said = re.findall(r" in (\d+) lines", before)[-1]
        what = {"networks": "architecture"}.get(kind, kind.removesuffix("s"))
        assert re.search(rf"^\| an? {what} +\| {said} lines", table, re.MULTILINE), (what, said)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import nothing_of_that_name", "cannot be loaded"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("sizes = 3", "3 is no function"),
        ("def sizes(run: int | str): pass", "Union types"),
    ],
)
def test_a_broken_command_is_named_and_leaves_the_program_alone(code, why, package, tmp_path):
    (package / NAME / "commands.py").write_text(f"{code}\n", encoding="utf-8")
    shown = finetune(package, "--help", cwd=tmp_path)
    assert (shown.returncode, "lr-find" in shown.stdout) == (0, True)
    first, second = shown.stderr.splitlines()
    assert first.startswith("warning: the command sizes of the package finetune_extra ")
    assert why in first
    assert second == "Repair the package, or: pip uninstall finetune_extra"


@pytest.mark.slow
def test_an_application_has_several_commands_below_one_name(package, small_run, tmp_path):
    path = package / NAME / "commands.py"
    more = "\nimport typer\nfrom finetune import FinetuneError\n"
    more += "one, sizes = sizes, typer.Typer()\nsizes.command()(one)\n"
    more += "@sizes.command()\ndef refuse():\n    raise FinetuneError('no')\n"
    path.write_text(path.read_text(encoding="utf-8") + more, encoding="utf-8")
    done = finetune(package, "sizes", "sizes", small_run, cwd=tmp_path)
    assert re.fullmatch(r"[\d,]+ parameters in 3 classes\n", done.stdout), done.stderr
    refused = finetune(package, "sizes", "refuse", cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (1, "error: no\n")


BROKEN = {
    "networks": ("model.arch=timm:resnet6", "networks of the package finetune_extra cannot be loaded"),
    "optimizers": ("optimizer.name=signum", "signum of the package finetune_extra cannot be loaded"),
    "heuristics": ("lr_finder.pick=tenth", "tenth of the package finetune_extra cannot be loaded"),
    "metrics": ("monitor=val_kappa", "kappa of the package finetune_extra cannot be loaded"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_imported_is_refused_in_two_lines(kind, package, tmp_path):
    draw_images(tmp_path / "photos", each=6)
    (package / NAME / f"{kind}.py").write_text("raise KeyError('broken')\n", encoding="utf-8")
    setting, said = BROKEN[kind]
    settings = (
        *(one for one in SETTINGS if kind != "networks" or "model." not in one),
        "stages.frozen.lr=auto",
    )
    done = finetune(package, "train", "photos", *settings, setting, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    first, second = done.stderr.splitlines()
    assert said in first
    assert "KeyError: 'broken'" in first
    assert second == "Repair the package, or: pip uninstall finetune_extra"


FAILING = {
    "optimizers": (
        "optimizer.name=signum",
        "signum",
        "                mean.lerp_",
        "                mean.lerp_+",
    ),
    "heuristics": ("lr_finder.pick=tenth", "tenth", "curve.lrs[-1]", "curve.lrs[10**9]"),
    "metrics": ("monitor=val_kappa", "kappa", "argmax(1)", "argmax(7)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAILING)
def test_what_fails_is_named_with_the_place_in_two_lines(kind, package, tmp_path):
    draw_images(tmp_path / "photos", each=6)
    setting, name, sound, failing = FAILING[kind]
    path = package / NAME / f"{kind}.py"
    code = path.read_text(encoding="utf-8")
    assert sound in code
    path.write_text(code.replace(sound, failing), encoding="utf-8")
    rates = (
        "stages.frozen.lr=auto" if kind == "heuristics" else "stages.frozen.lr=1e-3",
        "stages.frozen.epochs=1",
    )
    done = finetune(package, "train", "photos", *SETTINGS, *rates, setting, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    first, second = done.stderr.splitlines()
    assert re.match(rf"error: {name} of finetune_extra 1.0 failed: \w+Error: .* \(\w+\.py:\d+\)$", first), (
        first
    )
    assert second.startswith("Repair the package or report it there")
