"""What tells a class by something else than what its images show."""

import pytest
from conftest import draw_images, index_images, run_finetune, write_small_config
from PIL import Image

from finetune.data.images import ImageInfo, ImageLimits, Look
from finetune.data.images.appearance import Appearance
from finetune.data.index import ImageIndex, Sample
from finetune.data.quality.scan import check_images
from finetune.data.quality.shortcuts import find_shortcuts
from finetune.task import MultiLabel

APPEARANCE = Appearance(0.9, 0.1, 7.0, 0.7)


def look(size=(400, 300), mode="RGB", camera=""):
    return Look(ImageInfo(*size, False), mode, b"", APPEARANCE, camera)


def found(images, task=None):
    """Find shortcuts among (class or classes, ending, look)."""
    classes = sorted({name for labels, *_ in images for name in labels.split("|")})
    samples, looks = [], {}
    for number, (labels, ending, one) in enumerate(images):
        name = f"{number:03}{ending}"
        targets = tuple(classes.index(label) for label in labels.split("|"))
        samples.append(Sample(name, targets, "train"))
        looks[name] = one
    several = {} if task is None else {"task": task}
    return find_shortcuts(ImageIndex(None, tuple(classes), tuple(samples), **several), looks)


@pytest.mark.parametrize(
    ("ending", "other", "message", "detail"),
    [
        (".jpg", look((640, 480)), "with a size that", "10 of 10 are 640 × 480, and 0 of 20 others"),
        (".PNG", look(), "with a kind of file that", "10 of 10 are .png, and 0 of 20 others"),
        (".jpg", look(mode="L"), "with a colour mode that", "10 of 10 are L"),
        (".jpg", look(camera="Canon EOS"), "with a camera that", "10 of 10 are Canon EOS"),
    ],
)
def test_a_trait_of_one_class_alone_is_found(ending, other, message, detail):
    images = [("ant", ending, other)] * 10 + [("bee", ".jpg", look())] * 10 + [("wasp", ".jpg", look())] * 10
    (finding,) = found(images)
    assert finding.kind == "shortcut"
    assert message in finding.message
    (item,) = finding.items
    assert item.detail.startswith(f"'ant': {detail}")


def test_two_classes_each_of_its_own_size_are_one_finding():
    images = [("ant", ".jpg", look((640, 480)))] * 12 + [("bee", ".jpg", look((320, 240)))] * 12
    (finding,) = found(images)
    assert finding.message.startswith("2 classes with a size")
    assert len(finding.items) == 2


def test_what_others_have_as_well_is_no_shortcut():
    bees = [("bee", ".jpg", look((n, n))) for n in range(18)]
    images = [("ant", ".jpg", look((640, 480)))] * 12 + bees
    assert len(found(images)) == 1
    assert found(images + [("bee", ".jpg", look((640, 480)))] * 2) == []


def test_a_trait_that_a_class_has_not_nearly_always_is_none():
    images = [("ant", ".jpg", look((640, 480)))] * 7 + [("ant", ".jpg", look((n, n))) for n in range(20, 23)]
    assert found(images + [("bee", ".jpg", look((n, 2 * n))) for n in range(30, 50)]) == []


def test_few_images_tell_nothing():
    images = [("ant", ".png", look())] * 9 + [("bee", ".jpg", look())] * 30
    assert found(images) == []


def test_an_image_with_both_classes_is_no_other():
    alone = [("ant", ".png", look())] * 10 + [("bee", ".jpg", look())] * 12
    task = MultiLabel()
    assert len(found(alone, task)[0].items) == 2
    (finding,) = found([*alone, *[("ant|bee", ".jpg", look())] * 12], task)
    (item,) = finding.items  # half of the ants are JPEGs now, and still all the bees
    assert item.detail == "'bee': 24 of 24 are .jpg, and 0 of 10 others"


SIZES = (
    "2 classes with a size that other images have not: 'cat': 12 of 12 are 48 × 40, and 0 of 12 others; "
    "a network may learn that alone (finetune check shows them)"
)


@pytest.fixture
def sizes(tmp_path):
    """Return images of two classes, the one of another size than the other."""
    root = draw_images(tmp_path / "images", classes=("cat", "dog"))
    for path in root.glob("dog/*"):
        with Image.open(path) as image:
            image.rotate(90, expand=True).save(path)
    return root


def test_a_scan_remarks_on_sizes_also_where_it_remembers_them(sizes):
    index = index_images(sizes, seed=1)
    for _ in range(2):
        assert check_images(index, ImageLimits()).warnings[-1] == SIZES


def test_a_training_says_so_before_it_begins(sizes, tmp_path):
    result = run_finetune("train", write_small_config(tmp_path, sizes), "--dry-run")
    assert f"warning: {SIZES}\n" in result.output
