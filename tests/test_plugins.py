"""Packages that add to this one: each example of docs/extending.md, installed beside it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_images

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
NAME = "finetune_extra"


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


def test_a_broken_package_is_named_and_leaves_the_program_alone(package, tmp_path):
    (package / NAME / "commands.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    shown = finetune(package, "--help", cwd=tmp_path)
    assert "lr-find" in shown.stdout
    assert "warning: the command sizes of the package finetune_extra cannot be loaded" in shown.stderr
    assert "Traceback" not in shown.stderr
