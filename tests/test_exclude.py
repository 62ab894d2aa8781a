"""Images that a table leaves out: which, when, and what must be left."""

import csv
import json

import pytest
from conftest import run_finetune, write_small_config

from finetune.data.indexing.build import list_images, split_images
from finetune.errors import DataError


def write_table(path, rows, header=("image", "decision")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def split(images, excluded=None):
    index = list_images(images, val=0.25)
    return split_images(index, images, val=0.25, seed=0, excluded=excluded)


def names(index):
    return {sample.name: sample.split for sample in index.samples}


def test_the_named_images_are_left_out_and_no_other_changes_its_side(images, tmp_path):
    before = names(split(images))
    out = ["cat/cat00.png", "dog/dog03.png"]
    after = split(images, write_table(tmp_path / "out.csv", [(name,) for name in out], ("image",)))
    assert names(after) == {name: side for name, side in before.items() if name not in out}
    assert after.layout.left_out[-1].count == 2
    assert "data.exclude" in after.layout.left_out[-1].why


def test_where_there_are_decisions_only_those_to_drop_count(images, tmp_path):
    rows = [("cat/cat00.png", "drop"), ("cat/cat01.png", "keep"), ("cat/cat02.png", ""), ("gone.png", "keep")]
    left = names(split(images, write_table(tmp_path / "out.csv", rows)))
    assert "cat/cat00.png" not in left
    assert {"cat/cat01.png", "cat/cat02.png"} <= set(left)


def test_an_image_with_several_findings_is_out_if_one_says_so(images, tmp_path):
    rows = [("cat/cat00.png", "keep"), ("cat/cat00.png", "drop")]
    assert "cat/cat00.png" not in names(split(images, write_table(tmp_path / "out.csv", rows)))


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("cat/cat0O.png", "drop")], ("image", "decision"), r"line 2: no image 'cat/cat0O.png' in the"),
        ([("cat/cat00.png", "dorp")], ("image", "decision"), "'dorp' is neither keep nor drop"),
        ([("cat/cat00.png",)], ("file",), "has no column 'image'"),
        ([(f"cat/cat{n:02}.png",) for n in range(12)], ("image",), "leaves no image to train on of 'cat'"),
    ],
    ids=["unknown image", "unknown decision", "other columns", "a whole class"],
)  # fmt: skip
def test_what_cannot_be_is_refused(images, tmp_path, rows, header, message):
    with pytest.raises(DataError, match=message):
        split(images, write_table(tmp_path / "out.csv", rows, header))


def test_what_check_found_is_what_a_training_leaves_out(images, tmp_path):
    """From the table that `check` writes to the record of a run."""
    folder = tmp_path / "photos"
    (folder / "cat").mkdir(parents=True)
    for path in sorted(images.rglob("*.png")):
        target = folder / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (folder / "cat" / "broken.png").write_bytes(b"no picture")
    (folder / "cat" / "cat99.png").write_bytes((folder / "cat" / "cat00.png").read_bytes())
    config = write_small_config(tmp_path, folder)
    table, page = tmp_path / "found.csv", tmp_path / "found.html"
    result = run_finetune("check", config, "--csv", table, "--html", page)
    assert result.exit_code == 3, result.output
    assert f"table   {table}; decide in its last column, then data.exclude={table}" in result.stdout
    dropped = {
        row["image"] for row in csv.DictReader(table.read_text().splitlines()) if row["decision"] == "drop"
    }
    assert dropped == {"cat/broken.png", "cat/cat99.png"}
    result = run_finetune("train", config, f"data.exclude={table}", "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert f"exclude 2 images (data.exclude: {table})" in result.stdout
    left_out = json.loads((tmp_path / "run" / "started.json").read_text())["layout"]["left_out"]
    assert {"what": "image", "why": f"data.exclude: {table}", "count": 2} in left_out


def test_decisions_of_a_person_are_not_written_over(images, tmp_path, monkeypatch):
    config, table = write_small_config(tmp_path, images), tmp_path / "found.csv"
    (images_copy := tmp_path / "photos").mkdir()
    for path in sorted(images.rglob("*.png")):
        target = images_copy / path.relative_to(images)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    (images_copy / "cat" / "broken.png").write_bytes(b"no picture")
    arguments = ("check", config, f"data.path={images_copy}", "--csv", table)
    assert run_finetune(*arguments).exit_code == 3
    assert run_finetune(*arguments).exit_code == 3  # nothing was decided
    table.write_text(table.read_text().replace("drop", "keep"))
    monkeypatch.delattr("finetune.commands.check.check.check")  # nobody waits for it
    result = run_finetune(*arguments)
    assert result.exit_code == 2
    assert "1 decision in this file would be lost" in result.stderr
