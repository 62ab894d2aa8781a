"""What differs between runs, and which images one alone has right."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import rewrite, run_finetune, write_small_config

from finetune.runs.digests import write_covered


@pytest.fixture(scope="module")
def pair(small_run, images, tmp_path_factory):
    """Return a run and one of another schedule, which is too short to learn anything."""
    folder = tmp_path_factory.mktemp("pair")
    keys = ("stages.frozen.lr=1e-6", "stages.unfrozen.lr=1e-6", "stages.unfrozen.epochs=1")
    result = run_finetune("train", write_small_config(folder, images), *keys, "--run-dir", folder / "other")
    assert result.exit_code == 0, result.output
    return small_run, folder / "other"


def compared(*runs):
    result = run_finetune("compare", *runs, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_configs_are_compared_key_by_key(pair):
    (other,) = compared(*pair)["compared"]
    keys = {row["key"]: (row["first"], row["this"]) for row in other["config"]}
    assert keys["stages.1.epochs"] == ("2", "1")
    assert keys["stages.0.lr"] == ("0.01", "1e-06")
    assert set(keys) == {"stages.0.lr", "stages.1.lr", "stages.1.epochs"}
    assert other["data"] == []


def test_images_are_compared_one_by_one(pair):
    document = compared(*pair)
    (other,) = document["compared"]
    paired = other["paired"]
    good, bad = (run["accuracy"] for run in document["runs"])
    assert paired["images"] == 6
    assert paired["difference"] == pytest.approx(bad - good)
    assert paired["first_only"] == len(other["first_right"]) > 0
    assert all(name.endswith(".png") for name in other["first_right"])
    assert document["runs"][0]["history"][0]["stage"] == "frozen"


def test_a_run_beside_itself_differs_by_nothing(pair):
    (other,) = compared(pair[0], pair[0])["compared"]
    assert (other["config"], other["data"], other["first_right"]) == ([], [], [])
    assert (other["paired"]["difference"], other["paired"]["p_value"]) == (0, 1)


def test_each_of_several_is_compared_with_the_first(pair):
    document = compared(pair[0], pair[1], pair[0])
    assert len(document["runs"]) == 3
    assert [other["run_dir"] for other in document["compared"]] == [str(pair[1]), str(pair[0])]


def test_it_is_shown(pair, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = run_finetune("compare", *pair)
    assert result.exit_code == 0, result.output
    assert "other beside run" in result.stdout
    assert "their images are the same" in result.stdout
    assert "of 6 images that both validate on" in result.stdout
    assert "right in run alone: " in result.stdout


def test_other_images_are_counted(pair, tmp_path):
    changed = shutil.copytree(pair[0], tmp_path / "changed")
    lines = (changed / "split.csv").read_text().splitlines()
    row = next(n for n, line in enumerate(lines) if ",val," in line)
    lines[row] = lines[row].replace(",val,", ",train,")
    write_covered(changed, {"split.csv": ("\n".join(lines) + "\n").encode()})
    (other,) = compared(pair[0], changed)["compared"]
    assert other["data"] == ["images that are in another split: 1"]
    assert other["paired"]["images"] == 5


def test_other_classes_are_no_common_ground(pair, tmp_path):
    changed = shutil.copytree(pair[0], tmp_path / "changed")
    rewrite(changed, "classes.json", lambda names: names.__setitem__(0, "lion"))
    rewrite(changed, "model.json", lambda model: model["class_names"].__setitem__(0, "lion"))
    split = (changed / "split.csv").read_text()
    write_covered(changed, {"split.csv": split.replace(",cat", ",lion").encode()})
    (other,) = compared(pair[0], changed)["compared"]
    assert other["paired"] is None
    assert other["why_not"] == "their classes differ"
    assert "classes that only this one has: 'lion'" in other["data"]


@pytest.mark.parametrize("runs", [1, 0])
def test_one_run_is_not_compared(pair, runs):
    result = run_finetune("compare", *pair[:runs])
    assert result.exit_code == 2


def test_a_history_that_is_no_table_is_damage(pair, tmp_path):
    changed = shutil.copytree(pair[0], tmp_path / "changed")
    with (changed / "history.csv").open("ab") as file:
        file.write(b"frozen,9,1.0\r0.5\n")
    result = run_finetune("compare", pair[0], changed)
    assert result.exit_code == 5, result.output
    assert "history.csv is damaged or was changed" in result.stderr


def test_the_page_shows_scores_curves_and_the_pictures_that_one_has_right(pair, tmp_path):
    page = tmp_path / "page.html"
    result = run_finetune("compare", *pair, "--html", page, "--json")
    assert result.exit_code == 0, result.output
    document, text = json.loads(result.stdout), page.read_text(encoding="utf-8")
    (other,) = document["compared"]
    assert text.count("<figure>") == len(other["first_right"]) + len(other["this_right"]) > 0
    assert text.count("data:image/jpeg;base64,") == text.count("<figure>")
    assert text.count("<svg") == 2  # for wide windows and for narrow ones
    assert "<td>stages.1.epochs</td><td>2</td><td>1</td>" in text
    assert text.count("✓") == text.count("✗") == text.count("<figure>")
    assert f"Right in run alone: {len(other['first_right'])} image" in text
    assert "Of 6 images that both validate on" in text
    for run in document["runs"]:
        assert f"{100 * run['accuracy']:.2f}%" in text
    assert not re.search(r"<script|(?:src|href)=\"(?!data:|#)", text)


def test_names_cannot_become_part_of_the_page(pair, tmp_path):
    evil = tmp_path / "<script>alert(1)<"
    shutil.copytree(pair[1], evil)
    assert run_finetune("compare", pair[0], evil, "--html", "page.html").exit_code == 0
    text = Path("page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt; beside run" in text


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(pair, tmp_path):
    result = run_finetune("compare", "nowhere", "neither", "--html", tmp_path / "no" / "page.html")
    assert result.exit_code == 2
    assert "--html" in result.stderr
