"""Folders of images beside a table that says what they are: asked about where the two differ."""

import pytest
from conftest import index_images
from test_data import classes

from finetune.commands.survey import survey_data
from finetune.data.data_layout import FolderOptions
from finetune.data.indexing.build import list_images
from finetune.errors import DataError


@pytest.fixture
def root(tmp_path):
    """Return photographs and drawings of them, in two folders."""
    return classes(tmp_path, images=4, sketches=4)


def write_table(root, labels, *, name="labels.csv", header="image,label", folder="images/"):
    """Write a table of the photographs."""
    lines = [f"{folder}{n:02d}.png,{label}" for n, label in enumerate(labels)]
    (root / name).write_text("\n".join([header, *lines, ""]))
    return root / name


def test_a_table_that_says_other_classes_is_asked_about(root):
    table = write_table(root, ["ill", "well", "ill", "well"])
    message = r"labels.csv says that in images there are 'ill', 'well'. Which says the classes\?\ndata.path: "
    for read in (survey_data, list_images):
        with pytest.raises(DataError, match=message):
            read(root)
    assert list_images(table).class_names == ("ill", "well")
    assert list_images(root, folders=FolderOptions("classes")).class_names == ("images", "sketches")


def test_names_without_their_folder_are_found(root):
    for file in sorted((root / "sketches").iterdir()):
        file.rename(file.with_name(f"sketch_{file.name}"))
    write_table(root, "abab", folder="")
    with pytest.raises(DataError, match="Which says the classes"):
        list_images(root)


@pytest.mark.parametrize("labels", [["images"] * 4, ["0"] * 4, [""] * 4])
def test_a_table_that_repeats_the_folders_or_says_nothing_is_left_alone(root, labels):
    write_table(root, labels)
    assert index_images(root, seed=1).class_names == ("images", "sketches")


def test_a_table_of_something_else_is_left_alone(root):
    write_table(root, "abab", name="others.csv", folder="x/")
    write_table(root, "abab", name="sites.csv", header="image,site")
    (root / "prices.csv").write_text("item,price\napple,1\npear,2\n")
    (root / "empty.csv").write_text("")
    assert index_images(root, seed=1).class_names == ("images", "sketches")
