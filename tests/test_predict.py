import csv
import io
import json

import pytest
from conftest import draw_images, run_finetune


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
