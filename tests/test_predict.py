import csv
import errno
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import draw_images, run_finetune

from finetune.commands.predict.output import output_of, remarks_summary
from finetune.commands.predict.prediction import Answer, Prediction
from finetune.task import MultiLabel, SingleLabel


@pytest.fixture
def pictures(tmp_path):
    draw_images(tmp_path, each=2)
    (tmp_path / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return tmp_path


def test_each_image_gets_its_most_probable_classes(small_run, pictures):
    paths = [pictures / "owl/owl00.png", pictures / "cat/cat01.png"]
    result = run_finetune("predict", small_run, *paths, "--json")
    assert result.exit_code == 0
    answers = json.loads(result.stdout)
    assert [answer["image"] for answer in answers] == [str(path) for path in paths]
    assert [answer["predictions"][0]["class"] for answer in answers] == ["owl", "cat"]
    for answer in answers:
        shares = [entry["probability"] for entry in answer["predictions"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, rel=1e-5)
        assert answer["error"] is None


def test_an_unreadable_image_does_not_keep_the_others_from_being_answered(small_run, pictures):
    result = run_finetune("predict", small_run, pictures, "--json")
    assert result.exit_code == 3
    answers = {answer["image"]: answer for answer in json.loads(result.stdout)}
    assert len(answers) == 7
    broken = answers[str(pictures / "cat/broken.png")]
    assert broken["predictions"] == []
    assert broken["error"]
    assert "1 of 7 images could not be read" in result.stderr
    assert run_finetune("predict", small_run, pictures, "--ignore-errors").exit_code == 0


def test_a_missing_file_is_one_unreadable_image(small_run, pictures):
    result = run_finetune("predict", small_run, pictures / "nope.png", pictures / "owl/owl00.png", "--json")
    assert result.exit_code == 3
    assert [bool(answer["error"]) for answer in json.loads(result.stdout)] == [True, False]


def test_csv_has_a_row_for_each_class(small_run, pictures):
    result = run_finetune("predict", small_run, pictures / "dog", "--csv", "--top-k", 2)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["rank"], row["class"]) for row in rows if row["rank"] == "1"] == [("1", "dog")] * 2
    assert len(rows) == 4


def test_the_table_is_for_people(small_run, pictures):
    result = run_finetune("predict", small_run, pictures / "dog")
    assert result.exit_code == 0
    assert "dog00.png" in result.stdout


def test_a_prediction_does_not_depend_on_its_company(small_run, pictures):
    alone = json.loads(run_finetune("predict", small_run, pictures / "dog/dog00.png", "--json").stdout)
    result = run_finetune("predict", small_run, pictures, "--json", "--ignore-errors")
    together = {answer["image"]: answer for answer in json.loads(result.stdout)}
    for a, b in zip(alone[0]["predictions"], together[alone[0]["image"]]["predictions"], strict=True):
        assert a["class"] == b["class"]
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)


def test_an_empty_folder_is_an_error(small_run, tmp_path):
    result = run_finetune("predict", small_run, tmp_path)
    assert result.exit_code == 3
    assert "No images in" in result.stderr


# How predictions are written


def prediction(task, *, top_k=2, error=None):
    """Return an answer for two classes, of which the first is given; or why there is none."""
    classes = () if error else (Answer("cat", 0.7, True, 0.6), Answer("dog", 0.5, False, 0.9))
    certainty, unlike = (None, None) if error else (0.7, True)
    return Prediction("a.png", classes, certainty, unlike, error, top_k, task)


def test_one_class_is_written_without_labels_and_thresholds():
    output = output_of([prediction(SingleLabel())])
    assert output.json_object(prediction(SingleLabel())) == {
        "image": "a.png",
        "predictions": [{"class": "cat", "probability": 0.7}, {"class": "dog", "probability": 0.5}],
        "certainty": 0.7,
        "unlike": True,
        "error": None,
    }
    assert output.csv_header == ("image", "rank", "class", "probability", "unsure", "unlike", "error")
    for row in output.csv_rows(prediction(SingleLabel())):
        assert set(row) == set(output.csv_header) - {"unsure", "error"}
        assert row["unlike"] == 1
    assert output.table_row(prediction(SingleLabel())) == ("a.png", "cat", "70.00%", "dog 50.00%", "unlike")
    assert len(output.table_header) == 5


@pytest.mark.parametrize("task", [SingleLabel(), MultiLabel()])
def test_an_answer_below_the_limit_is_marked_as_unsure(task):
    for least, unsure in ((0.6, False), (0.7, False), (0.8, True)):
        output = output_of([prediction(task)], least)
        assert output.json_object(prediction(task))["unsure"] is unsure
        assert {row["unsure"] for row in output.csv_rows(prediction(task))} == {int(unsure)}
        assert output.table_row(prediction(task))[-1] == ("unsure, unlike" if unsure else "unlike")
    assert "unsure" not in output_of([prediction(task)]).json_object(prediction(task))


def test_what_is_remarked_is_summed_up():
    answers = [prediction(SingleLabel()), prediction(SingleLabel(), error="truncated")]
    assert remarks_summary(answers, 0.8) == [
        "unsure (a probability below 0.8): 1 of 1 image",
        "unlike all that the model was trained on: 1 of 1 image; its answers there mean little",
    ]
    assert remarks_summary([replace(answers[0], unlike=None)], None) == []


def test_several_classes_are_written_with_what_decides_on_each():
    answer = prediction(MultiLabel(), top_k=1)
    output = output_of([answer])
    assert list(output.json_object(answer)) == [
        "image",
        "labels",
        "predictions",
        "certainty",
        "unlike",
        "error",
    ]
    assert output.json_object(answer)["labels"] == ["cat"]
    assert output.json_object(answer)["predictions"] == [
        {"class": "cat", "probability": 0.7, "threshold": 0.6}
    ]
    columns = ("image", "rank", "class", "probability", "assigned", "unsure", "unlike", "error")
    assert output.csv_header == columns
    assert [row["assigned"] for row in output.csv_rows(answer)] == [1, 0]
    assert output.table_row(prediction(MultiLabel())) == ("a.png", "cat 70.00%", "dog 50.00%", "unlike")
    assert output.table_header == ("image", "labels", "next most probable", "remark")


@pytest.mark.parametrize("task", [SingleLabel(), MultiLabel()])
def test_an_image_that_cannot_be_read_has_a_row_with_the_reason(task):
    answer = prediction(task, error="truncated")
    output = output_of([answer])
    assert output.csv_rows(answer) == [{"image": "a.png", "error": "truncated"}]
    row = output.table_row(answer)
    assert (row[0], row[1], row[-2], len(row)) == ("a.png", "–", "truncated", len(output.table_header))
    assert output.json_object(answer)["predictions"] == []


def test_without_any_prediction_the_header_is_that_of_one_class():
    assert output_of([]).csv_header == output_of([prediction(SingleLabel())]).csv_header


# --output


@pytest.mark.parametrize(("name", "option"), [("all.csv", "--csv"), ("all.JSON", "--json")])
def test_a_file_holds_what_stdout_would(small_run, pictures, name, option):
    printed = run_finetune("predict", small_run, pictures / "dog", option)
    file = pictures / name
    file.write_text("old\n")
    result = run_finetune("predict", small_run, pictures / "dog", "--output", file)
    said = f"layout  folder: 2 images in and below {pictures / 'dog'}\n2 predictions written to {file}\n"
    assert result.exit_code == 0
    assert result.stdout.startswith(said)
    more = result.stdout.removeprefix(said).splitlines()  # of few images, one may be unlike the others
    assert all(line.startswith("unlike all that the model was trained on: ") for line in more)
    assert file.read_text() == printed.stdout
    assert not list(pictures.glob(".*.tmp"))


def test_a_file_and_stdout_can_both_be_written(small_run, pictures):
    result = run_finetune(
        "predict", small_run, pictures / "dog/dog00.png", "--json", "-o", pictures / "one.json"
    )
    assert result.stdout == (pictures / "one.json").read_text()
    assert "1 prediction written to" in result.stderr


def test_a_file_is_written_although_an_image_cannot_be_read(small_run, pictures):
    result = run_finetune("predict", small_run, pictures / "cat", "--output", pictures / "cat.json")
    assert result.exit_code == 3
    assert [bool(one["error"]) for one in json.loads((pictures / "cat.json").read_text())].count(True) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("all.txt", "name a file that ends in .csv or .json"),
        ("no/all.csv", "there is no folder"),
        ("folder.csv", "this is a folder; name a file in it"),
        ("table.csv", "this file is read; name another one"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_run_is_read(tmp_path, name, message):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "table.csv").write_text("image\n")
    result = run_finetune("predict", tmp_path / "no-run", tmp_path / "table.csv", "--output", tmp_path / name)
    assert result.exit_code == 2
    assert f"--output {tmp_path / name}: {message}" in result.stderr
    assert (tmp_path / "table.csv").read_text() == "image\n"


def test_a_file_that_may_not_be_written_is_refused_before_the_run_is_read(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    result = run_finetune("predict", tmp_path / "no-run", tmp_path, "--output", tmp_path / "all.csv")
    assert result.exit_code == 8
    assert f"Cannot write {tmp_path / 'all.csv'}: Permission denied." in result.stderr
