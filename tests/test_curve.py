"""`finetune curve`: accuracy by training images, and what more would bring, or too little to tell."""

import json

import pytest
from conftest import draw_images, run_finetune, write_small_config
from several import draw_several


@pytest.fixture(scope="module")
def enough(tmp_path_factory):
    """Return the config of enough images to say something."""
    folder = tmp_path_factory.mktemp("enough")
    return write_small_config(folder, draw_images(folder / "photos", classes=("cat", "dog"), each=30))


def test_points_and_forecast_as_json(enough, tmp_path):
    result = run_finetune("curve", enough, "--json", "--plot", "curve.png")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [point["images"] for point in found["points"]] == [6, 12, 24, 48]
    assert [point["images"] for point in found["forecast"]] == [96, 192]
    for point in found["points"] + found["forecast"]:
        assert {"images", "per_class", "accuracy", "low", "high"} <= set(point)
        assert 0 <= point["low"] <= point["accuracy"] <= point["high"] <= 1
    last = found["points"][-1]["per_class"]
    assert [(one["name"], one["images"]) for one in last] == [("cat", 24), ("dog", 24)]
    assert found["refusal"] is None
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_people_get_a_chart_a_table_of_classes_and_a_sentence(enough):
    text = run_finetune("curve", enough).output
    assert "4×" in text
    assert "is expected of twice the images" in " ".join(text.split())
    assert "with 2×" in text


def test_too_little_is_said_plainly(images, tmp_path):
    config = write_small_config(tmp_path, images)
    result = run_finetune("curve", config, "data.images_per_class=4")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "Too little to tell what more images would bring: 2 sizes of parts" in text
    found = json.loads(run_finetune("curve", config, "data.images_per_class=4", "--json").stdout)
    assert found["forecast"] == []
    assert found["refusal"].startswith("2 sizes of parts")
    assert len(found["points"]) == 2


def test_images_with_several_classes_are_refused_with_the_reason(tmp_path):
    table = draw_several(tmp_path / "several", each=2)
    own = ("data.label_separator=;", "data.columns.label=label")
    result = run_finetune("curve", write_small_config(tmp_path, table), *own)
    assert result.exit_code == 2
    assert "may have several classes each" in " ".join(result.output.split())


def test_metadata_is_left_out_and_that_is_said(tmp_path):
    config = write_small_config(tmp_path, "builtin:turned-digits")
    result = run_finetune("curve", config, "data.columns.metadata=[site]", "data.images_per_class=4")
    assert result.exit_code == 0, result.output
    assert "the metadata beside the images is not looked at" in " ".join(result.output.split())


def test_a_plot_that_cannot_be_written_is_refused_before_the_work(images, tmp_path):
    result = run_finetune("curve", write_small_config(tmp_path, images), "--plot", "curve.pdf")
    assert result.exit_code == 2
    assert "the plot is a PNG picture" in result.output
