"""`finetune labels`: doubtful labels as JSON, a table to decide in, and a page; corrections carry over."""

import csv
import importlib.util
import json
import shutil

import pytest
from conftest import draw_images, run_finetune, write_small_config
from several import draw_several


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    """Return images of which one of each of two classes lies in the folder of the other, and one twice."""
    data = draw_images(tmp_path_factory.mktemp("swapped"), each=12)
    (data / "cat" / "cat03.png").rename(data / "dog" / "wrong.png")
    (data / "owl" / "owl05.png").rename(data / "cat" / "other.png")
    shutil.copy(data / "owl" / "owl01.png", data / "dog" / "twice.png")
    return data


WRONG = {"dog/wrong.png": "cat", "cat/other.png": "owl", "dog/twice.png": "owl"}


@pytest.fixture(scope="module")
def answer(swapped, tmp_path_factory):
    """Return what the command gave, and the folder with its config, page and table."""
    folder = tmp_path_factory.mktemp("answer")
    config = write_small_config(folder, swapped)
    result = run_finetune(
        "labels", config, "--json", "--html", folder / "page.html", "--csv", folder / "fixes.csv"
    )
    assert result.exit_code == 0, result.output
    return result, folder


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_of_train_and_val_is_judged_and_wrong_ones_come_first(answer):
    found = json.loads(answer[0].stdout)
    images = found["images"]
    assert len(images) == 37
    assert set(images[0]) == {"image", "split", "label", "doubt", "flagged", "likely"}
    assert {image["split"] for image in images} == {"train", "val"}
    doubts = [image["doubt"] for image in images]
    assert doubts == sorted(doubts, reverse=True)
    assert all(0 <= doubt <= 1 for doubt in doubts)
    assert {image["image"]: image["likely"] for image in images[:3]} == WRONG
    assert all(image["flagged"] for image in images[:3])
    assert {image["image"]: image["label"] for image in images[:3]} == {
        name: name.split("/")[0] for name in WRONG
    }


def test_the_same_image_with_different_labels_is_listed(answer):
    (group,) = json.loads(answer[0].stdout)["alike"]
    assert {(one["image"], one["label"]) for one in group} == {
        ("dog/twice.png", "dog"),
        ("owl/owl01.png", "owl"),
    }


def test_the_table_has_a_row_for_every_image_and_keeps_all(answer):
    rows = rows_of(answer[1] / "fixes.csv")
    assert list(rows[0]) == ["image", "label", "likely", "doubt", "decision"]
    assert {row["decision"] for row in rows} == {"keep"}
    assert len(rows) == 37
    assert rows[0]["image"] in WRONG
    assert rows[0]["likely"] == WRONG[rows[0]["image"]]


def test_the_page_shows_the_doubtful_ones(answer):
    page = (answer[1] / "page.html").read_text(encoding="utf-8")
    assert all(f'data-image="{name}"' in page for name in WRONG)
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "The same image with different labels" in page
    assert "dog → cat" in page
    assert "dog → owl" in page


def test_people_get_a_table_and_what_to_do_next(swapped, tmp_path):
    config = write_small_config(tmp_path, swapped)
    result = run_finetune("labels", config, "--csv", "fixes.csv")
    text = " ".join(result.output.split())
    assert "dog/wrong.png" in text
    assert "labels flagged" in text
    assert "1 group alike with different labels" in text
    assert "decide in its last column, then data.corrections=fixes.csv" in text


def test_decisions_are_applied_and_carried_over_and_never_lost(swapped, tmp_path):
    config = write_small_config(tmp_path, swapped)
    decided = [("dog/wrong.png", "cat"), ("cat/other.png", "owl"), ("dog/twice.png", "drop")]
    with open("fixes.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "decision"), *decided])
    lost = run_finetune("labels", config, "--csv", "fixes.csv")
    assert lost.exit_code == 2
    assert "3 decisions in this file would be lost" in " ".join(lost.output.split())
    options = ("--json", "--csv", "next.csv", "--html", "page.html")
    result = run_finetune("labels", config, "data.corrections=fixes.csv", *options)
    found = json.loads(result.stdout)
    labels = {image["image"]: image["label"] for image in found["images"]}
    assert labels["dog/wrong.png"] == "cat"
    assert "dog/twice.png" not in labels
    assert found["alike"] == []
    carried = {row["image"]: row["decision"] for row in rows_of("next.csv") if row["decision"] != "keep"}
    assert carried == dict(decided)
    again = run_finetune("check", config, "data.corrections=next.csv")
    assert "corrections: 2 relabelled, 1 dropped (next.csv)" in " ".join(again.output.split())
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"dog/twice.png", "dog", "dog", "0.000000", "drop"' in page


def test_test_images_are_left_alone(tmp_path):
    for split, each in (("train", 8), ("val", 4), ("test", 4)):
        draw_images(tmp_path / "photos" / split, each=each)
    result = run_finetune("labels", write_small_config(tmp_path, tmp_path / "photos"), "--json")
    assert {image["split"] for image in json.loads(result.stdout)["images"]} == {"train", "val"}


def test_classes_of_few_images_are_named(tmp_path):
    data = draw_images(tmp_path / "photos", each=8)
    for path in sorted((data / "owl").glob("*"))[3:]:
        path.unlink()
    result = run_finetune("labels", write_small_config(tmp_path, data))
    assert "too few images to judge: 'owl' (3 images)" in " ".join(result.output.split())


def test_images_with_several_classes_are_judged_by_class(tmp_path):
    table = draw_several(tmp_path / "several")
    lines = table.read_text().splitlines()
    spoiled = next(n for n, line in enumerate(lines) if line.startswith("007.png"))
    lines[spoiled] = lines[spoiled].replace("red;green;blue", "red;green")
    table.write_text("\n".join(lines))
    own = ("data.label_separator=;", "data.columns.label=label")
    result = run_finetune("labels", write_small_config(tmp_path, table), *own, "--json", "--html", "p.html")
    first = json.loads(result.stdout)["images"][0]
    assert (first["image"], first["label"]) == ("007.png", "green|red")
    assert set(first["likely"].split("|")) == {"red", "green", "blue"}
    assert "green|red → " in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_metadata_is_left_out_and_that_is_said(tmp_path):
    config = write_small_config(tmp_path, "builtin:turned-digits")
    result = run_finetune("labels", config, "data.columns.metadata=[site]", "data.images_per_class=8")
    assert result.exit_code == 0, result.output
    assert "the metadata beside the images is not looked at" in " ".join(result.output.split())


def test_without_cleanlab_a_line_says_how_to_install_it(images, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "cleanlab" else find(name, *rest)
    )
    result = run_finetune("labels", write_small_config(tmp_path, images))
    assert result.exit_code == 2
    assert "Install it: pip install 'finetune-vision[labels]'" in result.output


@pytest.mark.parametrize("option", ["--html", "--csv"])
def test_files_that_cannot_be_written_are_refused_before_the_work(images, tmp_path, option):
    result = run_finetune("labels", write_small_config(tmp_path, images), option, "nowhere/file")
    assert result.exit_code == 2
    assert f"{option} nowhere/file: there is no folder nowhere" in " ".join(result.output.split())
