"""Classes in the names of files: found by a pattern, proposed where one explains all, and never for hours."""

import json
import time
from contextlib import suppress

import pytest
from conftest import draw_images, index_images, run_finetune, write_small_config
from test_data import classes, draw

from finetune.commands.survey import survey_data
from finetune.config.load import load_config
from finetune.data.data_layout import FolderOptions
from finetune.data.indexing import label_pattern
from finetune.data.indexing.build import list_images
from finetune.data.indexing.label_pattern import Proposal, labels_by_pattern, propose_pattern
from finetune.errors import ConfigError, DataError


def by_pattern(root, pattern):
    return list_images(root, folders=FolderOptions(label_pattern=pattern))


def test_the_group_is_the_class_wherever_the_file_lies(tmp_path):
    draw(tmp_path, "cat_1.png", "cat_2.png", "x/dog_1.png", "x/y/dog_2.png", "x/other.png")
    index = by_pattern(tmp_path, r"^(\w+)_\d")
    assert index.class_names == ("cat", "dog")
    assert [s.name for s in index.samples] == ["cat_1.png", "cat_2.png", "x/dog_1.png", "x/y/dog_2.png"]
    assert index.layout.line() == r"file names: labels by ^(\w+)_\d"
    assert index.layout.left_out[0].why == "without a class in their names"
    assert any("1 image of" in line and "without a class in their names" in line for line in index.warnings)


def test_splits_stay_splits_and_images_without_a_class_are_no_test(tmp_path):
    for split, number in (("train", 3), ("val", 2)):
        draw(tmp_path, *(f"{split}/{name}.{n}.png" for name in ("cat", "dog") for n in range(number)))
    draw(tmp_path, "test/1.png", "test/2.png")
    index = by_pattern(tmp_path, r"^(\D+)\.\d+")
    assert [index.count(split) for split in ("train", "val", "test")] == [6, 4, 0]
    assert "folder test" in [one.what for one in index.layout.left_out]


def test_a_pattern_that_finds_nothing_is_refused_with_a_name(tmp_path):
    draw(tmp_path, "a.png", "b.png")
    with pytest.raises(DataError, match=r"label_pattern: \^\(x\) finds no class .* 2 images .* in 'a.png'"):
        by_pattern(tmp_path, "^(x)")


@pytest.mark.slow  # each takes two seconds, as it should
@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^((a|a)*)b", r"(.*)*(.*)*(.*)*=", r"(?:a?){30}(a{30}!)"])
def test_a_pattern_that_runs_for_ever_is_stopped(pattern):
    started = time.monotonic()
    with suppress(ConfigError):
        labels_by_pattern(pattern, ["a" * 60 + "!.png"] * 3)
    assert time.monotonic() - started < 8


@pytest.mark.slow
def test_the_message_of_a_stopped_pattern_says_how_to_write_it():
    with pytest.raises(ConfigError, match=r"was stopped after 2 s on 1 name, such as 'a.*\nWrite it without"):
        labels_by_pattern(r"^(a+)+$", ["a" * 60 + "!"])


@pytest.mark.slow
def test_a_pattern_is_not_stopped_for_what_others_compute(monkeypatch):
    """A process that waits for a processor is as one that sleeps."""
    busy = label_pattern._PROGRAM.replace("pattern, names", "import time; time.sleep(2.5)\npattern, names", 1)
    monkeypatch.setattr(label_pattern, "_PROGRAM", busy)
    assert labels_by_pattern(r"^(.+)_\d", ["cat_1.png"]) == {"cat_1.png": "cat"}


def test_names_are_data(tmp_path):
    names = ["'; import os #_1.png", "\u202ecat\n_2.png", "d\udce9_3.png", 'a"_4.png']
    labels = labels_by_pattern(r"(?s)^(.+)_\d", [f"folder_9/{name}" for name in names])
    assert list(labels.values()) == ["'; import os #", "\u202ecat\n", "d\udce9", 'a"']


@pytest.mark.parametrize(
    ("names", "pattern", "found"),
    [
        (["cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg"], r"^(.+)\.\d+\.", {"cat", "dog"}),
        (["Apis_m_0.jpg", "Apis_m_1.jpg", "f r_0.jpg", "f r_1.jpg"], r"^(.+)_\d+\.", {"Apis_m", "f r"}),
        (["cat (1).jpg", "cat (2).jpg", "dog (1).jpg", "dog (2).jpg"], r"^(.+) \(\d+\)\.", {"cat", "dog"}),
        (["cat01.jpg", "cat02.jpg", "dog01.jpg", "dog02.jpg"], r"^(.*\D)\d+\.", {"cat", "dog"}),
        (["1_cat.jpg", "2_cat.jpg", "1_dog.jpg", "2_dog.jpg"], r"^\d+_(.+)\.", {"cat", "dog"}),
        (["cat_ab.jpg", "cat_xy.jpg", "dog_xz.jpg", "dog_q.jpg"], r"^([^_]+)_", {"cat", "dog"}),
    ],
)
def test_a_pattern_is_proposed_where_one_explains_all_names(names, pattern, found):
    assert propose_pattern(names * 2) == Proposal(pattern, "")
    assert set(labels_by_pattern(pattern, names).values()) == found


@pytest.mark.parametrize(
    "names", [[], ["a.jpg", "b.jpg"], ["IMG_1.jpg", "IMG_2.jpg"], ["cat_1.jpg", "cat_2.jpg", "cover.jpg"]]
)
def test_no_pattern_is_proposed_where_none_explains_all(names):
    assert propose_pattern(names) is None


@pytest.mark.parametrize(
    ("names", "doubt"),
    [
        (
            [f"{name}-{view}.jpg" for name in ("pic1", "pic2") for view in "dl"],
            "2 classes of 2.0 images each",
        ),
        ([f"{n}_{eye}.jpg" for n in range(10, 16) for eye in ("left", "right")], "views of the same"),
    ],
)
def test_a_pattern_that_finds_two_pictures_of_one_thing_is_shown_and_not_taken(tmp_path, names, doubt):
    draw(tmp_path, *(name.replace(".jpg", ".png") for name in names))
    assert doubt in propose_pattern(names).doubt
    with pytest.raises(DataError, match=rf"data\.label_pattern: '.*' \(.*{doubt}"):
        survey_data(tmp_path)


@pytest.fixture
def flat(tmp_path):
    """Draw images of three classes that lie in one folder."""
    root = draw_images(tmp_path / "drawn")
    (tmp_path / "flat").mkdir()
    for path in root.rglob("*.png"):
        path.rename(tmp_path / "flat" / f"{path.stem[:-2]}_{path.stem[-2:]}.png")
    return tmp_path / "flat"


def test_init_proposes_the_pattern_and_training_without_it_names_it(flat, tmp_path):
    assert (
        "file names: labels by ^(.+)_" in run_finetune("init", flat, "--output", tmp_path / "a.yaml").stdout
    )
    config = load_config(tmp_path / "a.yaml")
    assert config.data.label_pattern == r"^(.+)_\d+\."
    with pytest.raises(
        DataError, match=r"(?s)36 images lie directly .*data.label_pattern: '\^\(.\+\)_\\d\+\\.'"
    ):
        index_images(flat, seed=1)


def test_evaluation_reads_another_folder_by_the_pattern_of_the_run(flat, tmp_path):
    config = write_small_config(tmp_path, flat)
    pattern = r"data.label_pattern=^(.+)_\d+"
    trained = run_finetune("train", config, pattern, "--run-dir", tmp_path / "run")
    assert trained.exit_code == 0, trained.stderr
    result = run_finetune("evaluate", tmp_path / "run", flat, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 36
    folders = draw_images(tmp_path / "folders", each=2)
    result = run_finetune("evaluate", tmp_path / "run", folders, "--json")
    assert json.loads(result.stdout)["images"] == 6


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("'^.+_'", "one group in ( ), which matches the class, not 0"),
        ("'^(.+)_(.+)'", "which matches the class, not 2"),
        ("'^(.+'", "expected a regular expression: missing ), unterminated subpattern"),
        ("7", "expected text"),
        ("'(" + "a" * 1000 + ")'", "of at most 1,000 characters"),
    ],
)
def test_patterns_that_cannot_be_are_refused_with_their_line(tmp_path, value, message):
    config = tmp_path / "c.yaml"
    config.write_text(f"data:\n  path: x\n  label_pattern: {value}\n")
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert f"{config}:3 data.label_pattern: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "sites",
            "expected auto, classes, groups, classes/groups, innermost, or the folder of each split",
        ),
        ("{val: a}", "expected auto, classes, groups"),
        ("{train: a, val: a/}", "names one folder for two splits"),
        ("{train: a/b}", "expected the names of folders directly in data.path"),
        ("{train: 7}", "expected the names of folders directly in data.path"),
    ],
)
def test_layouts_that_cannot_be_are_refused_with_their_line(tmp_path, value, message):
    config = tmp_path / "c.yaml"
    config.write_text(f"data:\n  path: x\n  layout: {value}\n")
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert f"{config}:3 data.layout: " in str(error.value)
    assert message in str(error.value)


def test_keys_of_folders_have_no_effect_on_a_table(tmp_path):
    root = classes(tmp_path, a=1, b=1)
    (tmp_path / "t.csv").write_text("image,label\na/00.png,a\nb/00.png,b\n")
    index = list_images(root / "t.csv", folders=FolderOptions("classes", "(x)"))
    assert "data.layout and data.label_pattern without effect: data.path is no folder" in index.warnings
