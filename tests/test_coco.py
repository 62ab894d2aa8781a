"""Annotations in the format of COCO as labels of whole images."""

import json

import pytest
from conftest import draw_images, index_images

from finetune.commands.survey import survey_data
from finetune.errors import DataError

CATEGORIES = [{"id": 3, "name": "ant"}, {"id": 7, "name": "bee"}]


def write(folder, marked, **others):
    """Write annotations of the images of a folder: those of each image by its name."""
    images = [{"id": 10 + n, "file_name": name, "width": 40} for n, name in enumerate(marked)]
    annotations = [
        {"id": n, "image_id": 10 + position, "category_id": category, "bbox": [1, 2, 3.5, 4]}
        for position, categories in enumerate(marked.values())
        for n, category in enumerate(categories)
    ]
    value = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES} | others
    (folder / "instances.json").write_text(json.dumps(value))
    return folder / "instances.json"


@pytest.fixture
def names(tmp_path):
    """Draw images in one folder; return their names."""
    draw_images(tmp_path, each=4)
    (tmp_path / "val2017").mkdir()
    for file in sorted(tmp_path.glob("*/*.png")):
        file.rename(tmp_path / "val2017" / file.name)
    return sorted(file.name for file in (tmp_path / "val2017").iterdir())


def labels_of(index):
    return {sample.name.rpartition("/")[2]: "+".join(index.labels_of(sample)) for sample in index.samples}


def test_the_category_of_what_was_marked_is_the_class(tmp_path, names):
    marked = {name: [3] if n % 2 else [7, 7] for n, name in enumerate(names[:10])}
    index = index_images(write(tmp_path, {**marked, names[10]: []}), seed=1)
    assert labels_of(index) == {name: "ant" if ids == [3] else "bee" for name, ids in marked.items()}
    assert not index.task.multilabel
    assert (
        "the category of the COCO annotations of an image; 1 image without any left out"
        in index.layout.line()
    )


def test_images_with_two_categories_have_several_labels(tmp_path, names):
    marked = {name: [(), (3,), (7,), (7, 3)][n % 4] for n, name in enumerate(names)}
    path = write(tmp_path, marked)
    index = index_images(path, seed=1)
    expected = {(): "", (3,): "ant", (7,): "bee", (7, 3): "ant+bee"}
    assert index.task.multilabel
    assert labels_of(index) == {name: expected[ids] for name, ids in marked.items()}
    assert "all categories of the COCO annotations" in survey_data(path).layout.line()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"categories": []}, "annotation 1 is of category 3, which is not in it"),
        ({"categories": None}, "without a list of categories"),
        ({"images": [{"id": 99, "file_name": "x.png"}]}, "annotation 1 is of image 10, which is not in it"),
        ({"images": [{"id": 10}]}, "images 1 has no id or no file_name"),
        (
            {"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]},
            "two of its categories have the id 3",
        ),
        ({"annotations": []}, "no annotation says what an image is"),
        ({"annotations": [1]}, "without a list of annotations"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, others, message):
    path = write(tmp_path, {"1.png": [3], "2.png": [7]}, **others)
    with pytest.raises(DataError, match=message):
        index_images(path, seed=1)


def test_a_category_that_holds_what_separates_labels_is_refused(tmp_path):
    categories = [{"id": 3, "name": "a|b"}, {"id": 7, "name": "c"}]
    path = write(tmp_path, {"1.png": [3, 7]}, categories=categories)
    with pytest.raises(DataError, match=r"the category 'a\|b' holds '\|'"):
        index_images(path, seed=1)
