"""`data.corrections`: a table of decisions changes labels, and no file."""

import csv
import json

import pytest
from conftest import draw_images, run_finetune, write_small_config
from several import draw_several

from finetune.config.load import load_config
from finetune.data.image_files import digest_file
from finetune.data.indexing.corrections import COLUMNS, correct, read_decisions
from finetune.errors import DataError
from finetune.experiment.read_data import read_data, read_index


def write_decisions(path, decisions, header=("image", "decision")):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *decisions])
    return path


def index_with(folder, data, decisions, *overrides):
    """Index data with a table of decisions."""
    table = write_decisions(folder / "fixes.csv", decisions)
    return read_index(
        load_config(write_small_config(folder, data), [f"data.corrections={table}", *overrides])
    )


def index_without(folder, data, *overrides):
    return read_index(load_config(write_small_config(folder, data), list(overrides)))


def labels_of(index):
    return {sample.name: index.label_text(sample) for sample in index.samples}


def test_a_class_is_taken_an_image_dropped_and_all_else_kept(images, tmp_path):
    before = index_without(tmp_path, images)
    rows = [
        ("cat/cat00.png", "dog"),
        ("dog/dog03.png", "drop"),
        ("owl/owl01.png", "keep"),
        ("cat/cat05.png", ""),
    ]
    index = index_with(tmp_path, images, rows)
    expected = labels_of(before) | {"cat/cat00.png": "dog"}
    del expected["dog/dog03.png"]
    assert labels_of(index) == expected
    splits = {sample.name: sample.split for sample in before.samples}
    assert all(splits[sample.name] == sample.split for sample in index.samples)
    assert str(index.corrections) == f"1 relabelled, 1 dropped ({tmp_path / 'fixes.csv'})"
    assert [before.label_text(s) for s in index.corrections.relabelled.values()] == ["cat"]


def test_no_file_is_touched(tmp_path):
    data = draw_images(tmp_path / "photos", each=4)
    before = {path: path.read_bytes() for path in data.rglob("*.png")}
    index_with(tmp_path, data, [("cat/cat00.png", "dog"), ("dog/dog03.png", "drop")])
    assert {path: path.read_bytes() for path in data.rglob("*.png")} == before


def test_the_class_that_an_image_has_already_is_no_change(images, tmp_path):
    index = index_with(tmp_path, images, [("cat/cat00.png", "cat")])
    assert str(index.corrections).startswith("0 relabelled, 0 dropped")


def test_dropped_images_make_room_for_others_where_few_of_each_class_are_kept(images, tmp_path):
    few = index_without(tmp_path, images, "data.images_per_class=3")
    gone = next(sample.name for sample in few.of_split("train"))
    index = index_with(tmp_path, images, [(gone, "drop")], "data.images_per_class=3")
    assert index.counts("train") == {"cat": 3, "dog": 3, "owl": 3}
    assert gone not in labels_of(index)


@pytest.mark.parametrize(
    ("image", "decision", "message"),
    [
        ("kat/cat00.png", "drop", r"no image 'kat/cat00.png' in the data; did you mean 'cat/cat00.png'\?"),
        ("dog/cat01.png", "owl", r"no image 'dog/cat01.png' in the data; did you mean 'cat/cat01.png'\?"),
        (
            "cat/cat00.png",
            "dgo",
            r"decision 'dgo' is none of keep, drop and the classes; did you mean 'dog'\?",
        ),
        ("cat/cat00.png", "none", r"decision 'none' is none of keep, drop and the classes"),
        ("dog/dog00.png", "owl", r"dog/dog00.png is decided otherwise in line 2"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line_and_the_nearest_name(
    images, tmp_path, image, decision, message
):
    with pytest.raises(DataError, match=rf"line 3: {message}"):
        index_with(tmp_path, images, [("dog/dog00.png", "drop"), (image, decision)])


def test_rows_that_keep_may_name_images_that_are_gone(images, tmp_path):
    assert not index_with(tmp_path, images, [("gone.png", "keep"), ("too.png", "")]).corrections.dropped


def test_columns_are_found_wherever_they_stand_and_asked_for_where_not(images, tmp_path):
    index = index_without(tmp_path, images)
    rows = [("cat/cat00.png", "cat", "owl", "0.9", "owl")]
    table = write_decisions(tmp_path / "whole.csv", rows, COLUMNS)
    assert labels_of(correct(index, read_decisions(str(table), index)))["cat/cat00.png"] == "owl"
    other = write_decisions(tmp_path / "other.csv", [("a", "b")], ("image", "class"))
    with pytest.raises(DataError, match=r"data.corrections: .*other.csv has no column 'decision'"):
        read_decisions(str(other), index)
    with pytest.raises(DataError, match=r"no such table: .*nowhere.csv"):
        read_decisions("nowhere.csv", index)


def test_a_class_that_would_have_no_image_is_refused(images, tmp_path):
    everything = [(f"cat/cat{i:02}.png", "drop") for i in range(12)]
    with pytest.raises(DataError, match=r"leaves no image to train on of 'cat' \(\d+ images\)"):
        index_with(tmp_path, images, everything)


def test_validation_may_lose_a_class_with_a_warning_and_not_all_of_them(images, tmp_path):
    before = index_without(tmp_path, images)
    val = [(sample.name, "drop") for sample in before.of_split("val")]
    cats = [row for row in val if row[0].startswith("cat")]
    assert "to validate on, because of data.corrections" in index_with(tmp_path, images, cats).warnings[-1]
    with pytest.raises(DataError, match=r"leaves nothing to validate on"):
        index_with(tmp_path, images, val)


def test_names_that_a_spreadsheet_would_read_as_formulas_are_found(tmp_path):
    data = draw_images(tmp_path / "photos", classes=("=cat", "dog"), each=4)
    index = index_with(tmp_path, data, [("'=cat/=cat00.png", "dog"), ("dog/dog00.png", "'=cat")])
    assert labels_of(index)["=cat/=cat00.png"] == "dog"
    assert labels_of(index)["dog/dog00.png"] == "=cat"


class TestSeveralClasses:
    @pytest.fixture(autouse=True)
    def _data(self, tmp_path):
        self.folder, self.table = tmp_path, draw_several(tmp_path / "several")

    def index(self, decisions):
        own = ("data.label_separator=;", "data.columns.label=label")
        return index_with(self.folder, self.table, decisions, *own)

    def test_names_are_separated_as_in_the_table_or_as_in_what_labels_writes(self):
        rows = [("000.png", "red;blue"), ("001.png", "green|blue"), ("002.png", "none"), ("003.png", "blue")]
        labels = labels_of(self.index(rows))
        found = [labels[f"{number:03}.png"] for number in range(4)]
        assert found == ["red|blue", "green|blue", "", "blue"] or found == [
            "blue|red",
            "blue|green",
            "",
            "blue",
        ]

    def test_a_name_that_is_no_class_is_refused(self):
        with pytest.raises(DataError, match=r"has 'rde', which is no class; did you mean 'red'\?.*'[;|]'"):
            self.index([("000.png", "rde;blue")])


def test_a_run_records_corrections_and_scores_by_them(images, tmp_path):
    index = index_without(tmp_path, images)
    wrong = index.of_split("val")[0]
    table = write_decisions(tmp_path / "fixes.csv", [(wrong.name, "owl"), ("dog/dog03.png", "drop")])
    config = write_small_config(tmp_path, images)
    short = ["stages.unfrozen.epochs=1", f"data.corrections={table}"]
    result = run_finetune("train", config, *short, "--run-dir", "run")
    assert result.exit_code == 0, result.output
    assert f"corrections: 1 relabelled, 1 dropped ({table})" in " ".join(result.output.split())
    started = json.loads((tmp_path / "run" / "started.json").read_text())
    assert started["corrections"] == {
        "file": str(table), "blake2b": digest_file(table), "relabelled": 1, "dropped": 1
    }  # fmt: skip
    assert f"{wrong.name},val,owl" in (tmp_path / "run" / "split.csv").read_text()
    assert "Corrections" in (tmp_path / "run" / "report.html").read_text()
    scores = json.loads(run_finetune("evaluate", "run", "--json").stdout)
    counts = read_data(load_config(config, short)).index.counts("val")
    assert {row["name"]: row["support"] for row in scores["per_class"]} == counts

    write_decisions(table, [("dog/dog03.png", "drop")])
    (tmp_path / "run" / "status.json").write_text('{"state": "stopped"}')
    resumed = run_finetune("train", "run", "--resume")
    assert resumed.exit_code == 5
    assert f"images of another class, split or metadata: 1, {wrong.name}" in " ".join(resumed.output.split())


def test_check_counts_corrections(images, tmp_path):
    table = write_decisions(tmp_path / "fixes.csv", [("dog/dog03.png", "drop")])
    result = run_finetune("check", write_small_config(tmp_path, images), f"data.corrections={table}")
    assert f"corrections: 0 relabelled, 1 dropped ({table})" in " ".join(result.output.split())
