"""Which folders are splits, which are classes, and what is refused because it could be either."""

import pytest
from conftest import index_images
from test_data import classes, splits

from finetune.choices import split_of
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
        ({"test": 4, "bus": 4}, "Set data.path to .*test to train on .* or rename 'test' if that is a class"),
        ({"train__a": 4, "train__b": 4, "bus": 4}, "holds 'train', named like a split, beside 'bus'"),
        (
            {"train__a": 4, "train__b": 4, "holdout__a": 4, "holdout__b": 4},
            r"beside 'holdout'\.\nName the folder of validation images \(data.val: holdout\), set data.p",
        ),
        (
            {"train__a": 4, "train__b": 4, "test__a": 4, "bus": 4},
            "'test', 'train', named like a split, beside",
        ),
        ({"train__a": 4, "train__b": 4, "val": 4}, r"no class folders in .*val: 4 images lie directly in it"),
        ({"train__a": 4, "train__b": 4, "test": 4}, r"no class folders in .*test: 4 images lie directly"),
        ({"seg_train__a": 4, "seg_test__a": 4}, "'seg_test', 'seg_train', which look like splits"),
        ({"train2017": 4, "val2017": 4, "more": 4}, "set data.path to .*train2017 to train on that folder"),
        ({"TrainImages": 4, "TestImages": 4}, "if they are classes, rename them"),
        ({"train__train__a": 4, "train__val__a": 4}, r"train holds 'train', 'val', named like splits.*\nSet"),
        ({"train": 4, "val": 4}, r"no class folders in .*train: 4 images lie directly in it"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, counts, message):
    with pytest.raises(DataError, match=message):
        index_images(classes(tmp_path, **counts), seed=1)


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
def test_a_split_that_is_a_link_is_refused(tmp_path, link, val):
    root = classes(tmp_path, train__a=3, train__b=3)
    (root / link).symlink_to(root / "train")
    with pytest.raises(DataError, match=rf"{link} is a link to a folder, and those are not followed\.\nPut"):
        index_images(root, val=val, seed=1)


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
