"""Tables called like splits belong together; lists of paths say classes by their folders."""

import shutil

import pytest
from conftest import index_images, run_finetune
from PIL import Image
from published import PUBLISHED, draw, lines, of_classes, pictures, text

from finetune.data.indexing.build import list_images
from finetune.data.indexing.match_classes import match_classes
from finetune.errors import DataError


def write(name, root):
    return PUBLISHED[name].write(root) or root


def test_the_images_of_a_split_are_those_in_its_own_folder(tmp_path):
    """Names that each split has once more would fit several files in the folder of all."""
    write("tables_beside_folders_of_splits", tmp_path)
    index = list_images(tmp_path)
    assert {sample.name.split("/")[0]: sample.split for sample in index.samples} == {
        "train": "train", "val": "val", "test": "test",
    }  # fmt: skip
    assert len(index.samples) == 12


def test_a_list_without_classes_is_left_out_and_said(tmp_path):
    write("kaggle_without_test_labels", tmp_path)
    notes = list_images(tmp_path).layout.notes
    assert "splits by train.csv, valid.csv" in notes
    assert "test.csv says no class of images" in notes


def test_several_groups_of_lists_are_asked_about(tmp_path):
    pictures(tmp_path)
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        text(tmp_path / f"species_{split}.txt", lines("images/{f} {c}", numbers))
        text(tmp_path / f"colour_{split}.txt", lines("images/{f} c{k}", numbers))
    keys = "".join(f"\ndata.path: {tmp_path}/{name}_train.txt" for name in ("colour", "species"))
    with pytest.raises(DataError, match=f"2 groups of lists for splits.*{keys}$"):
        list_images(tmp_path)
    assert list_images(tmp_path / "species_train.txt").class_names == ("cat", "dog")


def test_class_folders_with_lists_that_say_other_labels_stay_what_they_are(tmp_path):
    of_classes(tmp_path, ".")
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        text(tmp_path / f"{split}.csv", "image,score\n" + lines("{c}/{f},{n}", numbers))
    assert list_images(tmp_path).layout.kind == "class folders"


def test_class_folders_are_split_by_lists_of_their_images(tmp_path):
    of_classes(tmp_path, ".")
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        text(tmp_path / f"splits/{split}.txt", lines("{c}/{f}", numbers))
    index = list_images(tmp_path)
    assert (index.count("train"), index.count("val")) == (8, 4)
    assert "classes by the folders of the images" in index.layout.line()


def test_a_list_of_paths_says_the_classes_by_their_folders(tmp_path):
    of_classes(tmp_path, "images")
    text(tmp_path / "all.txt", lines("images/{c}/{f}"))
    assert list_images(tmp_path / "all.txt").class_names == ("cat", "dog")
    text(tmp_path / "meta/all.txt", lines("{c}/{n:03}"))
    with pytest.raises(DataError, match=f"\ndata.image_folder: {tmp_path}/images$"):
        list_images(tmp_path / "meta/all.txt")
    matched = match_classes(tmp_path / "all.txt", ("cat", "dog"))
    assert [sample.target for sample in matched.index.samples] == [0] * 6 + [1] * 6


def test_folders_that_are_parts_of_a_whole_are_no_classes(tmp_path):
    draw(tmp_path, *(f"images_{n % 2 + 1:03}/{n:03}.jpg" for n in range(12)))
    text(tmp_path / "all.csv", "image\n" + "".join(f"images_{n % 2 + 1:03}/{n:03}.jpg\n" for n in range(12)))
    with pytest.raises(DataError, match="has no column for the label"):
        list_images(tmp_path / "all.csv")


@pytest.mark.parametrize("name", ["food101_pictures_alone", "birds_pictures_alone"])
def test_a_list_beside_the_folder_of_pictures_is_named(name, tmp_path):
    (line,) = index_images(write(name, tmp_path), seed=1).warnings
    assert "splits these images; here a part of each class is held out" in line
    assert line.endswith(f"data.path: {tmp_path}")
    text(tmp_path / "meta/train.txt", "elsewhere/1.jpg\nelsewhere/2.jpg\n")
    if name == "food101_pictures_alone":
        (tmp_path / "meta/train.json").unlink()
        assert index_images(tmp_path / "images", seed=1).warnings == ()


def test_validation_images_without_class_folders_have_the_classes_of_their_list(tmp_path):
    index = list_images(write("tiny_imagenet", tmp_path))
    assert index.layout.line().endswith("classes of val by val/val_annotations.txt")
    assert {one.what: one.why for one in index.layout.left_out}[
        "folder test"
    ] == "holds images without class folders"
    assert not [one for one in index.layout.left_out if one.what.endswith("in val")]
    matched = match_classes(tmp_path, ("cat", "dog"), split="val")
    assert [sample.target for sample in matched.index.samples] == [0, 1, 0, 1]
    text(tmp_path / "val/val_annotations.txt", lines("val_{n}.JPEG\tn0{k}", range(8, 12)))
    with pytest.raises(DataError, match=r"val has classes that .*train has not: 'images'"):
        list_images(tmp_path)


def test_a_folder_with_split_lists_is_read_alike_by_every_command(tmp_path):
    write("food101", tmp_path / "data")
    made = run_finetune("init", tmp_path / "data", "--output", tmp_path / "a.yaml")
    assert "splits by meta/train.txt, meta/test.txt" in made.stdout
    matched = match_classes(tmp_path / "data", ("cat", "dog"), split="test")
    assert len(matched.index.samples) == 4


def test_a_table_of_validation_images_beside_class_folders_for_training_is_asked_about(tmp_path):
    inner = tmp_path / "ILSVRC/Data"
    for place, numbers in (("train/a", (0, 1)), ("train/b", (2, 3)), ("val", (4, 5, 6, 7))):
        for number in numbers:
            path = inner / place / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 20), (20 * number, 0, 0)).save(path)
    table = tmp_path / "LOC_val_solution.csv"
    rows = [f"{number:03},{'ab'[number % 2]} 1 2 20 20 " for number in range(4, 8)]
    table.write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    with pytest.raises(DataError, match=r"the classes of ILSVRC/Data/val alone") as refusal:
        list_images(tmp_path)
    assert str(refusal.value).splitlines()[1:] == [
        f"data.path: {inner / 'train'}      the folders",
        f"data.path: {table}      the table",
    ]
    assert list_images(inner / "train").class_names == ("a", "b")
    shutil.rmtree(inner / "train")
    assert list_images(tmp_path).count("train") == 4
