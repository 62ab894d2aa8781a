"""Which image of a data set a cell of a table of decisions names."""

from pathlib import Path

import pytest

from finetune.data.index import ImageIndex, Sample
from finetune.data.indexing.image_names import ImageNames


def names_in(root, *names):
    return ImageNames(ImageIndex(Path(root), ("a",), tuple(Sample(name, (0,), "train") for name in names)))


@pytest.mark.parametrize(
    "cell",
    [
        "train/cat/1.jpg",
        "./train//cat/1.jpg",
        "cat/1.jpg",  # from below, as of data.path: photos/train
        "1.jpg",
        "photos/train/cat/1.jpg",  # from above
        "/data/photos/train/cat/1.jpg",
    ],
)
def test_an_image_is_found_from_folders_above_and_below(cell):
    assert names_in("/data/photos", "train/cat/1.jpg", "train/cat/2.jpg").find(cell) == "train/cat/1.jpg"


@pytest.mark.parametrize(
    "cell", ["dog/1.jpg", "other/train/cat/1.jpg", "/data/other/train/cat/1.jpg", "at/1.jpg"]
)
def test_an_image_of_another_folder_is_none(cell):
    message = rf"no image '{cell}' in the data; did you mean 'train/cat/1.jpg'\?"
    with pytest.raises(ValueError, match=message):
        names_in("/data/photos", "train/cat/1.jpg").find(cell)


def test_a_name_that_fits_several_images_is_refused():
    names = names_in("/data/photos", "train/cat/1.jpg", "val/cat/1.jpg")
    with pytest.raises(ValueError, match=r"'cat/1.jpg' may be any of 'train/cat/1.jpg', 'val/cat/1.jpg'"):
        names.find("cat/1.jpg")
    assert names.find("val/cat/1.jpg") == "val/cat/1.jpg"


def test_a_whole_name_goes_before_the_end_of_another():
    assert names_in("/data", "cat/1.jpg", "more/cat/1.jpg").find("cat/1.jpg") == "cat/1.jpg"
