"""Which folders are splits, which are classes, and what is refused because it could be either."""

import pytest
from conftest import index_images
from test_data import classes, splits

from finetune.choices import split_of
from finetune.data.data_layout import FolderOptions
from finetune.data.indexing.build import list_images, split_images
from finetune.data.indexing.match_classes import match_classes
from finetune.data.indexing.split_folders import find_split_folders
from finetune.errors import DataError


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("TRAIN", "VAL"),
        ("train", "Valid"),
        ("training", "validation"),
        ("Training", "Dev"),
        ("train", "eval"),
        ("training_set", "Validation Set"),
    ],
)
def test_splits_are_found_in_any_case_and_by_their_usual_names(tmp_path, train, val):
    root = classes(tmp_path, **{f"{train}__a": 3, f"{train}__b": 4, f"{val}__a": 1, f"{val}__b": 2})
    index = index_images(root, seed=1)
    assert index.class_names == ("a", "b")
    assert splits(index) == {"train": 7, "val": 3, "test": 0}
    assert {sample.name.split("/")[0] for sample in index.of_split("val")} == {val}


def test_training_and_testing_hold_out_a_part_of_training(tmp_path):
    root = classes(tmp_path, Training__a=10, Training__b=10, Testing__a=3, Testing__b=4)
    index = index_images(root, seed=1)
    assert splits(index) == {"train": 16, "val": 4, "test": 7}
    assert all(sample.name.startswith("Training/") for sample in index.of_split("val"))


def test_folders_beside_the_splits_are_not_used_and_named(tmp_path):
    root = classes(tmp_path, Train__a=3, Train__b=3, Val__a=1, Val__b=1, extra__a=5)
    (root / "notes").mkdir()
    assert any("not used: 'extra', 'notes'" in line for line in index_images(root, seed=1).warnings)


def test_a_folder_without_images_beside_train_leaves_no_doubt(tmp_path):
    root = classes(tmp_path, train__a=10, train__b=10)
    (root / "notes").mkdir()
    assert splits(index_images(root, seed=1)) == {"train": 16, "val": 4, "test": 0}


@pytest.mark.parametrize("name", ["train", "Training"])
def test_images_directly_in_a_folder_called_like_training_are_a_class(tmp_path, name):
    assert index_images(classes(tmp_path, **{name: 4, "bus": 4}), seed=1).class_names == tuple(
        sorted([name, "bus"])
    )


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"Train__a": 2, "training__b": 2, "val__a": 2},
            "two folders of training images, 'Train', 'training'",
        ),
        (
            {"train__a": 2, "train__b": 2, "Val__a": 1, "dev__a": 1},
            "validation images, 'Val', 'dev'; name one",
        ),
        (
            {"train__a": 2, "train__b": 2, "val__a": 1, "Test__a": 1, "test__b": 1},
            "two folders of test images",
        ),
        ({"VAL__a": 2, "test__a": 2}, "holds 'VAL', 'test' and no folder of training images"),
        ({"val": 2, "test": 2}, "holds 'test', 'val' and no folder of training images"),
        ({"val": 4, "bus": 4, "car": 4}, "holds 'val', named like a split, beside 'bus', 'car'"),
        (
            {"test": 4, "bus": 4},
            "Set data.path to .*test to train on .* data.layout: classes if 'test' is a class",
        ),
        ({"train__a": 4, "train__b": 4, "bus": 4}, "holds 'train', named like a split, beside 'bus'"),
        (
            {"train__a": 4, "train__b": 4, "holdout__a": 4, "holdout__b": 4},
            r"beside 'holdout'\.\nName the folder of validation images \(data.val: holdout\), set data.p",
        ),
        (
            {"train__a": 4, "train__b": 4, "test__a": 4, "bus": 4},
            r"'test', 'train', named like splits, beside 'bus'\.\nSet data.path to .*, leave 'bus' out "
            r"\(data.layout: {train: train, test: test}\), or write data.layout: classes if",
        ),
        (
            {"train__a": 4, "train__b": 4, "test__a": 4, "more__a": 4},
            r"beside 'more'\.\nName the folder of validation images \(data.val: more\), set data.path to",
        ),
        (
            {"train_mini__a": 4, "train_mini__b": 4, "val__a": 4, "val__b": 4},
            r"beside 'train_mini'\.\n.* write data.layout: {train: train_mini, val: val} if they are splits,",
        ),
        ({"train__a": 4, "train__b": 4, "val": 4}, r"no class folders in .*val: 4 images lie directly in it"),
        ({"seg_train__a": 4, "seg_test__a": 4}, "need at least 2 classes; .*seg_train has 1: 'a'"),
        (
            {"old_train__a": 4, "test_b__a": 4},
            r"(?s)'old_train', 'test_b', which look .* {train: old_train, test: t",
        ),
        (
            {"old_train__a": 4, "test_b__a": 4},
            "data.layout: classes if .* set data.path to .*old_train to tr",
        ),
        ({"train2017": 4, "val2017": 4, "more": 4}, "no class folders in .*train2017: 4 images"),
        ({"TrainImages": 4, "TestImages": 4}, "no class folders in .*TrainImages: 4 images"),
        ({"train": 4, "training": 4}, "two folders of training images"),
        ({"train__train__a": 4, "train__val__a": 4}, r"train holds 'train', 'val', named like splits.*\nSet"),
        ({"train": 4, "val": 4}, r"no class folders in .*train: 4 images lie directly in it"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, counts, message):
    with pytest.raises(DataError, match=message):
        index_images(classes(tmp_path, **counts), seed=1)


def test_test_images_without_class_folders_are_not_used_and_that_is_said(tmp_path):
    index = index_images(classes(tmp_path, train__a=4, train__b=4, test=4), seed=1)
    assert (index.count("train"), index.count("test")) == (6, 0)
    assert any("that are not used: 'test'" in line for line in index.warnings)
    assert [(one.what, one.why) for one in index.layout.left_out] == [
        ("folder test", "holds images without class folders")
    ]


@pytest.mark.parametrize("val", ["train", "./train", "train/", "Test", "test"])
def test_no_image_validates_that_trains_or_tests(tmp_path, val):
    test = "Test" if val == "Test" else "test"
    root = classes(tmp_path, **{"train__a": 3, "train__b": 3, f"{test}__a": 2, f"{test}__b": 2})
    what = "training" if "train" in val else "test"
    with pytest.raises(
        DataError,
        match=rf"data.val: .* is the folder of the {what} images .* in one split only\.\nWrite data.val",
    ):
        index_images(root, val=val, seed=1)


@pytest.mark.parametrize("val", ["holdout", "./holdout", "holdout/"])
def test_any_other_folder_can_be_named(tmp_path, val):
    root = classes(tmp_path, TRAIN__a=3, TRAIN__b=3, holdout__a=1, holdout__b=1, val__a=1)
    index = index_images(root, val=val, seed=1)
    assert {sample.name.split("/")[0] for sample in index.of_split("val")} == {"holdout"}


def test_class_folders_hold_no_splits(tmp_path):
    assert find_split_folders(classes(tmp_path, ants=1, bees=1), None).folders == {}


@pytest.mark.parametrize(
    ("name", "split"), [(" Val ", "val"), ("TESTING", "test"), ("trainer", None), ("", None)]
)
def test_a_name_stands_for_a_split_or_none(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize("names", [("freight train", "bus"), ("train2017", "trainB"), ("tested", "trained")])
def test_classes_whose_names_hold_words_of_splits_are_classes(tmp_path, names):
    index = index_images(classes(tmp_path, **dict.fromkeys(names, 3)), seed=1)
    assert index.class_names == tuple(sorted(names))


@pytest.mark.parametrize(
    ("link", "val"), [("val", "auto"), ("TEST", "auto"), ("again", "again"), ("val", 0.2)]
)
def test_a_split_that_is_a_link_to_another_is_refused(tmp_path, link, val):
    root = classes(tmp_path, train__a=3, train__b=3)
    (root / link).symlink_to(root / "train")
    message = (
        "drop data.val" if val == 0.2 else rf"{link} is .*train by another way: .* in two splits\.\nRemove"
    )
    with pytest.raises(DataError, match=message):
        index_images(root, val=val, seed=1)


def test_a_split_that_is_a_link_is_read(tmp_path):
    other = classes(tmp_path / "other", a=1, b=2)
    root = classes(tmp_path / "root", train__a=3, train__b=3)
    (root / "val").symlink_to(other)
    assert splits(index_images(root, seed=1)) == {"train": 6, "val": 3, "test": 0}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("seg_train", "seg_val"),
        ("Train_images", "val-images"),
        ("train2017", "val2017"),
        ("TrainImages", "ValidImages"),
        ("xray training set", "xray validation set"),
        ("my-train/my-train", "my-val/my-val"),
    ],
)
def test_splits_that_share_a_beginning_or_an_end_are_found(tmp_path, train, val):
    folders = {f"{train}/a": 3, f"{train}/b": 4, f"{val}/a": 1, f"{val}/b": 2}
    root = classes(tmp_path, **{name.replace("/", "__"): number for name, number in folders.items()})
    index = index_images(root, seed=1)
    assert splits(index) == {"train": 7, "val": 3, "test": 0}
    assert index.layout.splits == {"train": (train,), "val": (val,)}


def test_classes_that_hold_a_folder_for_each_patient_are_split_by_these(tmp_path):
    counts = {
        f"{label}__{patient}": 3
        for label, patients in (("a", "12345"), ("b", "56789"))
        for patient in patients
    }
    root = classes(tmp_path, **counts)
    with pytest.raises(
        DataError, match=r"\ndata.layout: classes/groups    'a', 'b'; '1' and so on are patients"
    ):
        index_images(root, seed=1)
    folders = FolderOptions("classes/groups")
    index = split_images(list_images(root, folders=folders), root, val="auto", seed=1)
    assert index.class_names == ("a", "b")
    sides = {
        sample.group: {s.split for s in index.samples if s.group == sample.group} for sample in index.samples
    }
    assert sides.keys() == set("123456789")  # the patient of both classes is one
    assert all(len(splits) == 1 for splits in sides.values())
    assert {"train", "val"} == {split for splits in sides.values() for split in splits}
    assert index.layout.line().startswith("class folders of groups: groups '1', '2', '3'")
    shared = classes(tmp_path / "shared", a__1=2, a__2=2, b__1=2, b__2=2)
    with pytest.raises(
        DataError, match="are classes, or classes/groups if '1', '2' are patients or the like"
    ):
        index_images(shared, seed=1)


def test_a_folder_named_like_the_splits_is_not_used_and_named(tmp_path):
    counts = {"seg_train__a": 10, "seg_train__b": 10, "seg_test__a": 3, "seg_test__b": 3, "seg_pred": 5}
    index = index_images(classes(tmp_path, **counts), seed=1)
    assert splits(index) == {"train": 16, "val": 4, "test": 6}
    assert "folder seg_pred" in [one.what for one in index.layout.left_out]


SITES = {"x__a": 6, "x__b": 6, "y__a": 6, "y__b": 6, "z__a": 6}


def test_folders_that_all_hold_the_same_folders_are_asked_about(tmp_path):
    root = classes(tmp_path, **SITES)
    with pytest.raises(
        DataError, match=r"'x', 'y', 'z' all hold 'a', 'b'\. Which are the classes\?\ndata.layout"
    ):
        index_images(root, seed=1)


def test_the_answer_is_a_key_of_the_config(tmp_path):
    root = classes(tmp_path, **SITES)

    def read(layout):
        return split_images(list_images(root, folders=FolderOptions(layout)), root, val="auto", seed=1)

    assert read("classes").class_names == ("x", "y", "z")
    groups = read("groups")
    assert groups.class_names == ("a", "b")
    assert {sample.group for sample in groups.samples} == {"x", "y", "z"}
    assert groups.layout.line() == "groups of class folders: groups 'x', 'y', 'z'"
    said = read({"train": "x", "val": "y"})
    assert splits(said) == {"train": 12, "val": 12, "test": 0}
    assert "folder z" in [one.what for one in said.layout.left_out]


def test_one_folder_in_each_class_is_no_class(tmp_path):
    root = classes(tmp_path, x__images=2, y__images=2)
    assert index_images(root, seed=1).class_names == ("x", "y")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"train": "nowhere"}, r"data.layout: no folder 'nowhere' for train in .*; there is 'x', 'y', 'z'"),
        ({"train": "x", "val": "link"}, "link is .*x by another way"),
    ],
)
def test_layouts_that_cannot_be_are_refused(tmp_path, layout, message):
    root = classes(tmp_path, **SITES)
    (root / "link").symlink_to(root / "x")
    if "val" not in layout:
        (root / "link").unlink()
    with pytest.raises(DataError, match=message):
        list_images(root, folders=FolderOptions(layout))


def test_a_layout_and_a_named_folder_contradict_each_other(tmp_path):
    root = classes(tmp_path, **SITES)
    with pytest.raises(DataError, match=r"data\.val: 'y' names a folder, and so does data\.layout"):
        list_images(root, val="y", folders=FolderOptions({"train": "x"}))


@pytest.mark.parametrize("names", [("TRAIN", "Val"), ("seg_test", "seg_dev")])
def test_two_classes_with_names_of_splits_are_refused_whatever_led_to_them(tmp_path, names):
    root = classes(tmp_path, **dict.fromkeys(names, 3))
    with pytest.raises(DataError, match="which are names of splits"):
        list_images(root, folders=FolderOptions("classes"))
    table = tmp_path / "table.csv"
    table.write_text("image,label\n" + "".join(f"{name}/00.png,{name}\n" for name in names))
    with pytest.raises(DataError, match="which are names of splits"):
        list_images(table)


@pytest.mark.parametrize("val", ["TRAIN", "train/a", "train/../train", "..", ""])
def test_no_other_spelling_reaches_the_training_images(tmp_path, val):
    root = classes(tmp_path, train__a=3, train__b=3)
    with pytest.raises(DataError, match=r"data\.val: no folder"):
        index_images(root, val=val, seed=1)


# Evaluation


@pytest.mark.parametrize(
    ("counts", "split", "known", "images"),
    [
        ({"TRAIN__a": 1, "Valid__a": 2, "Test__a": 3}, "val", "ab", 2),
        ({"TRAIN__a": 1, "Valid__a": 2, "Test__a": 3}, "test", "ab", 3),
        ({"TRAIN__a": 1, "Valid__a": 2, "Test__a": 3}, "train", "ab", 1),
        ({"val__a": 2, "test__a": 3}, "test", "ab", 3),
        ({"val__a": 2, "extra__a": 3}, "val", "ab", 2),
        ({"a": 2, "test": 3}, "val", "ab", 2),
        ({"train": 2, "bus": 3}, "val", ("bus", "train"), 5),
        ({"train": 2}, "val", ("bus", "train"), 2),
        ({"train__train": 2, "train__bus": 3, "val__train": 1}, "val", ("bus", "train"), 1),
    ],
)
def test_an_evaluated_folder_is_read_by_the_classes_of_the_model(tmp_path, counts, split, known, images):
    matched = match_classes(classes(tmp_path, **counts), list(known), split=split)
    assert len(matched.index.samples) == images


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train__a": 1, "test__a": 1}, "holds 'test', 'train' and none of val images.\nName one of its"),
        ({"val__a": 1, "Dev__a": 1}, "holds 'Dev', 'val' and two folders of val images.\n.*--split"),
    ],
)
def test_an_evaluated_folder_needs_one_folder_of_the_split(tmp_path, counts, message):
    with pytest.raises(DataError, match=message):
        match_classes(classes(tmp_path, **counts), ["a", "b"])
