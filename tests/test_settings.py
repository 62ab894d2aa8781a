"""The data alone instead of a config: a folder or table, with the defaults that `init` writes."""

import json
import os

import pytest
from conftest import draw_images, run_finetune

from finetune.commands.init import write_config
from finetune.commands.settings import read_settings
from finetune.config.load import load_config

QUICK = (
    "model.arch=shufflenet_v2_x0_5", "model.weights=builtin:glyphs", "data.image_size=32",
    "data.batch_size=8", "data.workers=0", "precision=float32", "stages.frozen.epochs=1",
    "stages.frozen.lr=1e-2", "stages.unfrozen.epochs=1",
)  # fmt: skip


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_images(tmp_path / "photos", each=8)
    return "photos"


def test_a_folder_trains_with_the_config_that_init_writes(photos, tmp_path):
    write_config(tmp_path / photos, tmp_path / "written.yaml")
    config, name = read_settings(tmp_path / photos)
    assert config == load_config(tmp_path / "written.yaml")
    assert name == "photos"


@pytest.mark.parametrize("data", ["photos", "labels.csv"])
def test_a_folder_or_a_table_can_be_trained_and_resumed(photos, tmp_path, data):
    rows = [f"photos/{name}/{name}{i:02}.png,{name}" for name in ("cat", "dog", "owl") for i in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *rows]))
    result = run_finetune("train", data, *QUICK)
    assert result.exit_code == 0, result.output
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith(f"{data.removesuffix('.csv')}-")
    line = f"config  the defaults for {data}, in config.yaml of the run; to change them: finetune init {data}"
    assert line in result.stdout
    assert load_config(run / "config.yaml").data.path == data
    assert sorted(os.listdir(tmp_path)) == ["labels.csv", "photos", "runs"]
    again = run_finetune("train", data, *QUICK, "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["run_dir"] == str(run.relative_to(tmp_path))
    assert "is finished; there is nothing left to do" in again.stderr


def test_a_config_in_json_is_told_from_a_table(photos, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"data": {"path": photos, "batch_size": 4}}))
    assert read_settings(tmp_path / "config.json")[0].data.batch_size == 4
    table = {f"photos/{name}/{name}{i:02}.png": name for name in ("cat", "dog") for i in range(8)}
    (tmp_path / "table.json").write_text(json.dumps(table))
    assert read_settings(tmp_path / "table.json")[0].data.path == str(tmp_path / "table.json")


@pytest.mark.parametrize("command", ["check", "groups", "lr-find"])
def test_other_commands_take_the_data_as_well(photos, command):
    result = run_finetune(command, photos, *QUICK, "lr_finder.pick=knee", "--json")
    assert result.exit_code in (0, 3, 4), result.output
    assert json.loads(result.stdout)


def test_a_run_is_not_taken_for_data(small_run):
    result = run_finetune("train", small_run)
    assert result.exit_code == 2
    assert f"{small_run} is a run; add --resume to resume it" in result.stderr


def test_a_rate_is_not_written_into_data(photos):
    result = run_finetune("lr-find", photos, "--write")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: --write: photos is data, and its config is in no file.",
        "Write one first: finetune init photos",
    ]


def test_what_is_no_data_is_refused_in_plain_words(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run_finetune("train", "empty")
    assert result.exit_code == 3
    assert "no images in" in result.stderr


@pytest.mark.parametrize("command", ["check", "curve", "groups", "labels", "lr-find", "rank"])
def test_a_run_in_the_place_of_images_is_told_from_them(command, small_run):
    result = run_finetune(command, small_run)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {small_run} is a run, which has no images.\n"
        f"Name its config, {small_run / 'config.yaml'}, or images.\n"
    )
