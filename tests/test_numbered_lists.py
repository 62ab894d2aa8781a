"""Lists that belong together by number, as of CUB-200-2011, and what is wrong with such lists."""

import pytest
from conftest import run_finetune
from test_data import draw

from finetune.config.load import load_config
from finetune.data.indexing.build import list_images
from finetune.errors import DataError

LISTS = {
    "images.txt": "1 001.Cat/a b.png\n2 001.Cat/2.png\n3 002.Dog/3.png\n4 002.Dog/4.png\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n",
    "classes.txt": "1 001.Cat\n2 002.Dog small\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n4 0\n",
}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "CUB"
    draw(folder, *(f"images/{line[2:]}" for line in LISTS["images.txt"].splitlines()))
    (folder / "parts").mkdir()
    for name, text in LISTS.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["", *LISTS])
def test_the_lists_are_read_together_whichever_is_named(root, tmp_path, name):
    made = run_finetune("init", root / name, "--output", tmp_path / "a.yaml")
    assert made.exit_code == 0, made.output
    index = list_images(load_config(tmp_path / "a.yaml").data.path)
    assert {row[0]: row[1:] for row in index.rows()} == {
        "images/001.Cat/a b.png": ("train", "001.Cat"), "images/001.Cat/2.png": ("test", "001.Cat"),
        "images/002.Dog/3.png": ("train", "002.Dog small"), "images/002.Dog/4.png": ("test", "002.Dog small"),
    }  # fmt: skip
    assert (
        "joined by number: images.txt, image_class_labels.txt, classes.txt, train_test" in index.layout.line()
    )


def test_names_and_splits_may_be_missing(root):
    (root / "classes.txt").unlink()
    (root / "train_test_split.txt").unlink()
    index = list_images(root)
    assert (index.class_names, index.count("train")) == (("1", "2"), 4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("image_class_labels.txt", "1 1\n2 1\n", r"has no class of image 3 \(2 faults in all\)"),
        ("image_class_labels.txt", "1 1\n2 1\n3 2\n4 9\n", "classes.txt has no class 9"),
        ("train_test_split.txt", "1 1\n2 0\n3 1\n", "says nothing of image 4"),
        ("train_test_split.txt", "1 1\n2 0\n3 1\n4 2\n", "has '2' for image 4; expected 1 or 0"),
        ("images.txt", "1 a.png\n1 b.png\n", r"images\.txt:2: '1 b\.png' is not a number of its own"),
        ("images.txt", "a.png\n", r"images\.txt:1: 'a\.png' is not"),
    ],
)
def test_lists_that_do_not_fit_are_refused(root, name, text, message):
    (root / name).write_text(text)
    with pytest.raises(DataError, match=message):
        list_images(root)
