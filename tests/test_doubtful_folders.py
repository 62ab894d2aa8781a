"""Folders that are hardly classes are asked about, and `data.layout` settles what they are."""

import gzip

import pytest
from conftest import run_finetune
from test_data import draw

from finetune.commands.survey import survey_data
from finetune.config.load import load_config
from finetune.data.data_layout import FolderOptions
from finetune.data.indexing.build import list_images
from finetune.errors import DataError

DOUBTFUL = {
    "parts of an archive": (("images_001", "images_002"), "differ in a number alone"),
    "parts beside others": (("X_images_part_1", "X_images_part_2", "extra"), "differ in a number alone"),
    "patients": (("patient00001/study1", "patient00002/study1"), "differ in a number alone"),
    "annotations": (
        ("images", "annotations/trimaps"),
        r"called like images .*\n.*\n.*/images      that folder",
    ),
    "masks": (("JPEGImages", "SegmentationClass"), "called like images and what belongs to them"),
    "a second copy": (
        ("all/no", "all/yes", "no", "yes"),
        r"'all' holds 'no', 'yes'.*\ndata.path: .*/all      ",
    ),
    "letters": (
        ("a/abbey", "a/airfield", "b/bakery/shop"),
        r"3 folders .*'a', 'b'.*\n.*\n.*'a/abbey', 'a/air",
    ),
    "patients below": (("ill/p1", "ill/p2", "well/p3", "well/p4"), "4 folders inside of 'ill', 'well'"),
    "domains": (("web/images/cat", "web/images/dog", "cam/images/cat"), "3 folders inside of 'cam', 'web'"),
}
CLASSES = {
    "numbers": ("0", "1"),
    "codes": ("c0", "c1", "n01443537", "n01629819"),
    "subfolders": ("ants", "ants/more", "bees/only"),
    "one image folder": ("images", "drawings"),
    "with and without": ("with_mask", "without_mask"),
    "mask alone": ("mask", "no mask"),
}


def drawn(root, folders, each=2):
    draw(root, *(f"{folder}/{folder.replace('/', '')}{n}.png" for folder in folders for n in range(each)))
    return root


@pytest.mark.parametrize("name", DOUBTFUL)
def test_folders_that_are_hardly_classes_are_asked_about(tmp_path, name):
    folders, message = DOUBTFUL[name]
    root = drawn(tmp_path, folders)
    for read in (survey_data, list_images):
        with pytest.raises(DataError, match=rf"(?s){message}") as caught:
            read(root)
        assert "data.layout: classes" in str(caught.value)
    named = list_images(root, folders=FolderOptions("classes")).class_names
    assert named == tuple(sorted({folder.partition("/")[0] for folder in folders}))


@pytest.mark.parametrize("name", CLASSES)
def test_plain_class_folders_are_not(tmp_path, name):
    named = list_images(drawn(tmp_path, CLASSES[name])).class_names
    assert set(named) == {folder.partition("/")[0] for folder in CLASSES[name]}


def test_training_folders_are_asked_about_with_the_table_above_them(tmp_path):
    drawn(tmp_path, ("train/patient1", "train/patient2", "valid/patient3"))
    (tmp_path / "train.csv").write_text("Path,ill\na,0\n")
    with pytest.raises(DataError, match=r"patient1.*\n.*\nOr does a table .*/train\.csv"):
        list_images(tmp_path)


def test_innermost_folders_are_classes_called_by_their_paths_in_each_split(tmp_path):
    folders = ("a/abbey", "a/airfield", "b/bakery/shop")
    drawn(tmp_path / "flat", folders, each=10)
    made = run_finetune("init", tmp_path / "flat", "data.layout=innermost", "--output", tmp_path / "a.yaml")
    assert made.exit_code == 0, made.output
    assert "layout  innermost folders" in made.stdout
    data = load_config(tmp_path / "a.yaml").data
    assert list_images(data.path, folders=FolderOptions(data.layout)).class_names == folders
    drawn(tmp_path / "split", [f"{split}/{folder}" for split in ("train", "val") for folder in folders])
    index = list_images(tmp_path / "split", folders=FolderOptions("innermost"))
    assert index.class_names == folders
    assert (index.count("train"), index.count("val")) == (6, 6)


@pytest.mark.parametrize(
    "names",
    [
        ("ill/images/1.png", "ill/masks/1.png", "well/images/2.png", "well/masks/2.png"),
        ("ill/a (1).png", "ill/a (1)_mask.png", "ill/a (1)_mask_1.png", "well/2.png", "well/2-label.png"),
        ("train/ill/images/1.png", "train/ill/ground_truth/x/1.png", "train/well/images/2.png"),
    ],
)
def test_masks_beside_their_images_are_left_out_and_that_is_said(tmp_path, names):
    draw(tmp_path, *names)
    index = list_images(tmp_path)
    assert [s.name for s in index.samples] == [
        n for n in names if not any(w in n for w in ("mask", "label", "truth"))
    ]
    number = len(names) - len(index.samples)
    assert any(f"{number} image" in line and "masks of others: not used" in line for line in index.warnings)
    assert (number, "masks of others") in {(one.count, one.why) for one in index.layout.left_out}
    if not names[0].startswith("train"):
        assert len(list_images(tmp_path, folders=FolderOptions("classes")).samples) == len(names)


def test_names_with_such_words_alone_are_no_masks(tmp_path):
    draw(
        tmp_path, "mask/1_mask.png", "mask/2_mask.png", "bare/1.png", "bare/masks/2.png", "bare/annotated.png"
    )
    assert len(list_images(tmp_path).samples) == 5


@pytest.mark.parametrize("val", ["val/images", "val"])
def test_validation_images_without_their_classes_can_be_left_out(tmp_path, val):
    drawn(tmp_path, ("train/ants", "train/bees", val), each=5)
    with pytest.raises(DataError, match=r"Or train without it: data\.layout: \{train: train\} holds out"):
        list_images(tmp_path)
    assert list_images(tmp_path, folders=FolderOptions({"train": "train"})).count("train") == 10


def test_a_compressed_file_that_is_no_archive_is_unpacked_otherwise(tmp_path):
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(gzip.compress(b"0"))
    with pytest.raises(DataError, match=r"no archive by its name\.\nUnpack it \(gunzip -k labels.csv.gz"):
        list_images(path)


def test_a_flat_train_beside_test1_is_no_pair_of_classes(tmp_path):
    draw(tmp_path, *(f"train/{name}.{n}.png" for name in ("cat", "dog") for n in range(4)), "test1/1.png")
    (tmp_path / "sampleSubmission.csv").write_text("id,label\n1,0\n2,0\n")
    assert survey_data(tmp_path).counts == {"cat": 4, "dog": 4}
