"""The page of doubtful labels: every name escaped, decisions that mean what they say, a bounded size."""

import re
from base64 import b64decode
from io import BytesIO

import pytest
from PIL import Image

from finetune.report.labels_page import DoubtfulImage, LabelsPage, labels_page
from finetune.report.thumbnails import SIDE, thumbnail_of

HEADER = ("image", "label", "likely", "doubt", "decision")


def image(name="a.jpg", **changes):
    values = {
        "split": "train", "label": "ant", "likely": "bee", "doubt": 0.987, "flagged": True,
        "decision": "keep", "thumbnail": Image.new("RGB", (40, 30), "red"),
    }  # fmt: skip
    return DoubtfulImage(name, **(values | changes))


def page(*images, **changes):
    values = {
        "title": "photos", "images": images, "all_images": 500, "doubtful": len(images),
        "flagged": sum(one.flagged for one in images), "class_names": ("ant", "bee", "wasp"),
        "header": HEADER,
    }  # fmt: skip
    return labels_page(LabelsPage(**(values | changes)))


def options(text):
    """Return the values that the first image offers, the selected one with a star."""
    first = re.search(r"<select.*?</select>", text, flags=re.DOTALL)[0]
    found = re.findall(r'<option value="([^"]*)"( selected)?', first)
    return [value + "*" * bool(selected) for value, selected in found]


def test_images_stand_by_pair_of_classes_in_the_order_of_their_doubt():
    text = page(image("1"), image("2", label="bee", likely="ant"), image("3"))
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["ant → bee", "bee → ant"]
    assert re.findall(r'data-image="(.)"', text) == ["1", "3", "2"]
    assert "2 images" in text
    assert "98.7%" in text


def test_it_says_of_how_many_images_it_shows_how_many():
    text = page(image())
    assert "Of 500 images, 1 looks more like another class than like its own" in text
    assert "cleanlab flags 1 as wrong" in text
    assert "Shown are the 1 most doubtful of them." in page(image(), doubtful=40)
    assert "All of them are shown" in text


def test_names_are_escaped_and_harmless():
    text = page(image('<img>"&.jpg', label="<b>", likely="=1+1"), title="</title><script>")
    assert "<img>" not in text
    assert "<b>" not in text.replace("<b>bee", "")
    assert "</title><script>" not in text
    assert "'=1+1" in options(text.replace("&#39;", "'"))


def test_names_that_are_no_text_do_no_harm():
    text = page(image("caf\udce9.jpg"), others=[("b\udce9.jpg", "ant", "ant", "0", "drop")])
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["keep", "drop", "bee"]),
        ({"decision": "drop"}, ["keep", "drop*", "bee"]),
        ({"decision": "wasp"}, ["keep", "drop", "bee", "wasp*"]),
        ({"likely": "drop"}, ["keep", "drop"]),
    ],
)
def test_what_can_be_decided_of_an_image(changes, expected):
    assert options(page(image(**changes))) == expected


def test_no_class_is_a_decision_where_an_image_may_have_several():
    text = page(image(likely=""), several=True)
    assert options(text) == ["keep", "drop", "none"]
    assert "ant → no class" in text


def test_thumbnails_are_small():
    small = thumbnail_of(Image.new("RGB", (800, 400)))
    assert small.size == (SIDE, SIDE // 2)
    text = page(image(thumbnail=small))
    picture = re.search(r"data:image/jpeg;base64,([^\"]+)", text)[1]
    assert Image.open(BytesIO(b64decode(picture))).size == small.size


def test_it_needs_no_other_file_and_no_network():
    text = page(image(address="file:///photos/a.jpg"))
    assert not re.search(r'(src|href)="https?:', text)
    assert 'href="file:///photos/a.jpg"' in text


def test_images_that_are_alike_are_named_with_their_labels():
    text = page(image(), alike=[[("a.jpg", "ant"), ("b.jpg", "")]])
    assert "a.jpg <b>ant</b> = b.jpg <b>no class</b>" in text
