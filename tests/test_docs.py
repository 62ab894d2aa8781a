"""The documentation: nothing that programs rely on is missing, links lead somewhere, tutorials run."""

import contextlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import yaml
from browser import Browser
from conftest import run_finetune
from photos import draw_photo
from PIL import Image
from typer.main import get_group

import finetune
from finetune.cli import MODULES, load_app
from finetune.config.load import parse_config
from finetune.errors import FinetuneError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "scripts"))

import dependencies  # noqa: E402
import draw_figures  # noqa: E402
import rooms  # noqa: E402
from tutorials import PAGES, Ran, folder_of, in_shell, run_blocks  # noqa: E402


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_file_of_a_run_is_described(small_run):
    for path in small_run.iterdir():
        name = f"{path.name}/" if path.is_dir() else path.name
        assert name.startswith(".") or f"`{name}`" in page("run-directory.md"), name


def test_every_event_and_what_it_holds_is_described(small_run):
    text = page("programs.md")
    for line in (small_run / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        assert f"\n| `{event['event']}` |" in text
        missing = {key for key in event if f"`{key}`" not in text}
        assert not missing, event["event"]


def test_every_exit_code_is_described():
    def all_below(kind):
        return [kind, *(found for below in kind.__subclasses__() for found in all_below(below))]

    codes = set(map(int, re.findall(r"^\| (\d+) \|", page("programs.md"), re.MULTILINE)))
    assert codes == {0, 1, 2, *(error.exit_code for error in all_below(FinetuneError))}


def test_every_command_that_prints_json_is_described():
    text = page("programs.md")
    for name, command in get_group(load_app()).commands.items():
        if any("--json" in getattr(parameter, "opts", ()) for parameter in command.params):
            assert f"`{name} --json`" in text, name


def test_every_name_of_the_package_is_in_the_reference():
    assert [name for name in finetune.__all__ if name not in page("api.md")] == ["__version__"]


def test_every_claim_on_security_is_held_by_a_test():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 15
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


@pytest.mark.parametrize("name", ["from-fastai", "from-keras", "from-ultralytics"])
def test_configs_of_the_guides_are_valid(name):
    (config,) = re.findall(r"^```yaml\n(.*?)^```", page(f"tutorials/{name}.md"), re.DOTALL | re.MULTILINE)
    assert parse_config(config, name).data.path == "photos"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The documentation: the site in html/, the manual page in man/."""
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("built")
    for builder in ("html", "man"):
        command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "-b", builder, str(DOCS)]
        done = subprocess.run([*command, str(folder / builder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_and_the_manual_page_are_built_without_a_warning(built):
    assert "finetune train" in (built / "html" / "commands.html").read_text(encoding="utf-8")
    assert "lr\\-find" in (built / "man" / "finetune.1").read_text(encoding="utf-8")
    site = built / "html"
    assert "start" in (site / "searchindex.js").read_text(encoding="utf-8")
    # It is read and searched without a network: nothing that a page loads is elsewhere.
    loaded = (
        r"<(?:script|img|iframe)[^>]*\ssrc=\"(?:https?:)?//|<link[^>]*stylesheet[^>]*href=\"(?:https?:)?//"
    )
    away = [path.name for path in site.rglob("*.html") if re.search(loaded, path.read_text(encoding="utf-8"))]
    assert away == []


@pytest.mark.slow
def test_every_page_of_the_site_fits_a_telephone_and_a_desk_and_lacks_nothing(built, tmp_path):
    with Browser(tmp_path) as browser:
        for page in sorted((built / "html").rglob("*.html")):
            for width in (360, 1280):
                browser.open(page.as_uri(), width=width)
                assert browser.evaluate("document.documentElement.scrollWidth") <= width, (page.name, width)
            assert browser.complaints == [], page.name


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A few drawn photographs, in the folders that the tutorials begin with."""
    root, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    kinds = ("dress", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "t-shirt")
    for data, classes in (("clothes", kinds), ("hymenoptera", ("ants", "bees"))):
        for split, each in (("train", 10), ("val", 3)):
            for name in classes:
                folder = root / data / split / name
                folder.mkdir(parents=True)
                for number in range(each):
                    draw_photo(generator, 120, 90).save(folder / f"{name}-{number:03}.jpg")
    return root


def sooner(command, folder):
    """Run a command for few epochs on small images, in this process where it is one of the program alone."""
    if command.startswith("finetune train"):
        command += " data.image_size=64 stages.frozen.epochs=1 stages.frozen.lr=3e-3"
        command += "" if "stages=" in command else " stages.unfrozen.epochs=1"
    if command.startswith("finetune lr-find"):
        command += " lr_finder.pick=minimum"  # no race finds a rate at which noise is learnt
    words = shlex.split(command)
    if words[0] != "finetune" or not {"|", ";", ">"}.isdisjoint(words):
        return in_shell(command, folder)
    with contextlib.chdir(folder):
        result = run_finetune(*words[1:])
    return Ran(command, result.output, result.exit_code)


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_commands_of_the_tutorials_run(path, photographs):
    pytest.importorskip("timm")
    text = path.read_text(encoding="utf-8")
    with folder_of(text, photographs) as folder:
        for block in run_blocks(text, folder, sooner):
            assert [(ran.command, ran.output) for ran in block if ran.exit_code] == []


FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form.stem != "config"], ids=lambda form: form.stem
)
def test_a_form_for_reports_is_one_and_asks_for_commands_that_there_are(form):
    text = form.read_text(encoding="utf-8")
    written = yaml.safe_load(text)
    assert {"name", "description", "body"} <= set(written)
    fields = [field["id"] for field in written["body"]]
    assert len(set(fields)) == len(fields)
    assert {field["type"] for field in written["body"]} <= {"textarea", "input"}
    commands = {command for names in MODULES.values() for command in names}
    assert set(re.findall(r"`finetune ([a-z-]+)", text)) <= commands


@pytest.mark.skipif(matplotlib.__version_info__ < (3, 11), reason="it places text otherwise")
@pytest.mark.parametrize("name", ["schedule", "groups"])
def test_a_figure_shows_what_the_code_does(name, tmp_path):
    getattr(draw_figures, f"draw_{name}")(tmp_path)
    with Image.open(DOCS / f"{name}.png") as kept, Image.open(tmp_path / f"{name}.png") as now:
        assert kept.size == now.size
        apart = np.abs(np.asarray(kept, np.int16) - np.asarray(now, np.int16)).max(axis=2)
    # Another matplotlib may smooth otherwise.
    assert np.mean(apart > 100) < 5e-4, "python scripts/draw_figures.py"


def test_the_page_of_licences_has_every_package_that_is_required():
    written = page("dependencies.md")
    table = [line for line in written.splitlines() if line.startswith("| ")][1:]
    for line, row in zip(table, dependencies.required().values(), strict=True):
        assert line.startswith(row), "python scripts/dependencies.py"
    assert "not installed" not in written, "run it where all extras are installed"


def test_the_drawing_of_the_rooms_shows_all_of_them_on_their_floors():
    needs = rooms.room_imports(rooms.PACKAGE)
    drawn = re.findall(r"<text .*</text>", (ROOT / "docs" / "rooms.svg").read_text(encoding="utf-8"))
    now = rooms.drawing(needs, rooms.floors_of(needs))
    assert drawn == re.findall(r"<text .*</text>", now), "python scripts/rooms.py --draw docs/rooms.svg"
