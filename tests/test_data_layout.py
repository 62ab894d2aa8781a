"""What a data set was taken for is described in one line, and whole for programs."""

import json

import pytest
from conftest import run_finetune, write_small_config
from PIL import Image

from finetune.data.data_layout import BUILT_IN, FolderOptions, Layout, LeftOut
from finetune.data.indexing.build import list_images
from finetune.errors import DataError

KEYS = ["kind", "splits", "image_column", "label_column", "encoding", "left_out"]

SMALL = (
    "model.arch=shufflenet_v2_x0_5",
    "model.weights=builtin:glyphs",
    "data.image_size=32",
    "stages.frozen.lr=0.01",
)


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for name in ("ants", "bees"):
            draw(tmp_path / "data" / split / name / "1.png")
    (tmp_path / "data" / "train" / "ants" / "notes.txt").write_text("x")
    draw(tmp_path / "data" / "more" / "x" / "1.png")
    return tmp_path / "data"


def test_folders_of_splits_are_described(folder):
    layout = list_images(folder).layout
    assert layout.line() == "split folders: train in train, val in val"
    assert layout.to_dict() == {
        "kind": "split folders",
        "splits": {"train": ["train"], "val": ["val"]},
        "image_column": None,
        "label_column": None,
        "encoding": None,
        "left_out": [
            {"what": "files .txt in train", "why": "not named like an image", "count": 1},
            {"what": "folder more", "why": "is named like no split", "count": 1},
        ],
    }


def test_class_folders_are_described(folder):
    layout = list_images(folder / "train").layout
    assert (layout.line(), layout.splits) == ("class folders", {"train": (".",)})
    assert layout.left_out == (LeftOut("files .txt", "not named like an image", 1),)


def test_folders_within_classes_are_counted_and_the_other_reading_is_named(tmp_path):
    for name in ("cat/home/a.png", "cat/home/b.png", "cat/out/far/c.png", "cat/d.png", "dog/images/e.png"):
        draw(tmp_path / name)
    assert list_images(tmp_path).layout.line() == (
        "class folders: 2 folders within classes count as theirs (data.layout=innermost: as classes)"
    )
    inner = list_images(tmp_path, folders=FolderOptions("innermost"))
    assert inner.class_names == ("cat", "cat/home", "cat/out/far", "dog/images")
    assert inner.layout.line() == "innermost folders"


def test_a_table_is_described(folder):
    table = folder / "labels.csv"
    table.write_text("path,class,camera\ntrain/ants/1.png,ants,a\ntrain/bees/1.png,bees,a\n")
    layout = list_images(table).layout
    assert layout.line() == "table: images in column 'path', labels in 'class'"
    assert list(layout.to_dict()) == KEYS
    assert json.dumps(layout.to_dict())
    assert (layout.encoding, layout.splits) == ("utf-8", {"train": (".",)})
    assert layout.left_out == (LeftOut("column camera", "not named in data.columns", 1),)


def test_columns_of_0_and_1_are_counted():
    layout = Layout("table", image_column="image", label_column=("a", "b"), encoding="cp1252")
    assert layout.line() == "table: images in column 'image', labels in 2 columns of 0 and 1; read as cp1252"
    assert layout.to_dict()["label_column"] == ["a", "b"]


def test_a_built_in_data_set_is_described():
    assert list_images("builtin:digits").layout == BUILT_IN
    assert BUILT_IN.line() == "built-in"


def test_nothing_is_left_out_where_the_count_is_zero():
    assert BUILT_IN.without("images", "cannot be read", 0) is BUILT_IN
    assert BUILT_IN.without("images", "cannot be read", 2).left_out[0].count == 2


def test_commands_say_what_the_data_were_taken_for_and_the_run_keeps_it(folder, tmp_path):
    config = write_small_config(tmp_path, folder)
    shown = "layout  split folders: train in train, val in val"
    assert shown in run_finetune("init", folder, "--output", tmp_path / "new.yaml").stdout
    assert f"# Read as {shown.removeprefix('layout  ')}." in (tmp_path / "new.yaml").read_text()
    checked = run_finetune("check", config)
    assert shown in checked.stdout
    document = json.loads(run_finetune("check", config, "--json").stdout)
    assert list(document["layout"]) == KEYS
    trained = run_finetune("train", config, "--run-dir", tmp_path / "run")
    assert trained.exit_code == 0
    assert shown in trained.stdout + trained.stderr
    assert json.loads((tmp_path / "run" / "started.json").read_text())["layout"] == document["layout"]


def table_in(folder, name="labels.csv"):
    rows = "".join(
        f"{path.relative_to(folder)},{path.parent.name}\n" for path in sorted(folder.rglob("*.png"))
    )
    (folder / name).write_text(f"image,label\n{rows}")


def test_a_table_beside_images_without_class_folders_is_read_and_named(tmp_path):
    for name in "abcd":
        draw(tmp_path / "data" / "images" / f"{name}.png")
    (tmp_path / "data" / "labels.csv").write_text(
        "image,label\nimages/a.png,x\nimages/b.png,y\nimages/c.png,x\nimages/d.png,y\n"
    )
    index = list_images(tmp_path / "data")
    assert index.class_names == ("x", "y")
    assert index.layout.line() == "table: labels.csv; images in column 'image', labels in 'label'"
    shown = run_finetune("init", tmp_path / "data", "--output", tmp_path / "new.yaml").stdout
    assert "layout  table: labels.csv; images in" in shown
    assert run_finetune("train", tmp_path / "new.yaml", "--dry-run", *SMALL).exit_code == 0


def test_several_tables_beside_images_are_asked_about(tmp_path):
    draw(tmp_path / "train" / "1.png")
    draw(tmp_path / "train" / "2.png")
    for name in ("labels.csv", "labels_old.csv", "sample_submission.csv"):
        (tmp_path / name).write_text("image,label\n1.png,x\n2.png,y\n")
    with pytest.raises(DataError, match=r"several tables, 'labels.csv', 'l.*\ndata.path: .*/labels.csv\n"):
        list_images(tmp_path)
    result = run_finetune("init", tmp_path)
    assert (result.exit_code, "Which says what the images are?" in result.stderr) == (3, True)
    (tmp_path / "labels_old.csv").unlink()
    assert list_images(tmp_path).class_names == ("x", "y")  # a submission says nothing of these images


def test_class_folders_with_tables_beside_them_stay_class_folders(folder):
    for name in ("a.csv", "b.csv"):
        table_in(folder / "train", name)
        table_in(folder, name)
    assert list_images(folder / "train").layout.kind == "class folders"
    assert list_images(folder).layout.kind == "split folders"
