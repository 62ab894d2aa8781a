"""The page of what `check` has found: names escaped, a choice for each image, nothing from elsewhere."""

import re
import zipfile
from dataclasses import replace

from PIL import Image

from finetune.data.index import ImageIndex
from finetune.report.check_page import CheckPage, FoundImage, FoundItem, Section, check_page
from finetune.report.thumbnails import address_of

HEADER = ("image", "finding", "detail", "decision")
PICTURE = Image.new("RGB", (40, 30), "red")


def image(name, *, drop=False, thumbnail=PICTURE):
    return FoundImage(name, "train", "ant", drop, thumbnail, f"file:///photos/{name}")


def page(*sections, others=()):
    return check_page(CheckPage("photos", 500, "class folders", sections, HEADER, others))


def section(*items, kind="dark", not_shown=0):
    return Section("warning", kind, "nearly black: 2", "Remove them.", items, not_shown)


def test_each_image_has_a_choice_that_is_set_as_proposed():
    text = page(section(FoundItem([image("a.jpg", drop=True)], "5%"), FoundItem([image("b.jpg")], "6%")))
    boxes = re.findall(r'<input type="checkbox" data-image="(.*?)" data-finding="dark" .*?>', text)
    assert boxes == ["a.jpg", "b.jpg"]
    assert text.count(" checked>") == 1
    assert text.count('<div class="images">') == 1  # single images stand in one row


def test_images_that_belong_together_stand_together():
    pair = FoundItem([image("a.jpg"), image("b.jpg")], "train, val")
    text = page(section(pair, pair))
    assert text.count('<div class="images">') == text.count("train, val:") == 2


def test_an_image_that_cannot_be_read_has_no_picture():
    text = page(section(FoundItem([image("a.jpg", thumbnail=None)], "truncated JPEG")))
    assert "<img" not in text
    assert "no picture" in text
    assert "truncated JPEG" in text


def test_names_are_escaped_and_harmless():
    text = page(
        section(FoundItem([image('=<img>"&\udcff.jpg')], "<b>")), others=[("<script>", "x", "", "drop")]
    )
    assert "<img>" not in text
    assert "<b>" not in text
    assert text.count("<script>") == 1
    assert 'data-image="&#39;=&lt;img&gt;' in text


def test_it_says_how_many_images_it_does_not_show():
    assert "… and 40 images more" in page(section(not_shown=40))
    assert "Nothing was found" in page()
    assert "500 images. Taken for class folders." in page()


def test_it_needs_no_other_file():
    text = page(section(FoundItem([image("a.jpg")], "")))
    assert not re.search(r'(src|href)="(?!data:|file:///photos/)', text)


def test_images_in_archives_have_no_address(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a/1.jpg", b"")
    inside = ImageIndex(tmp_path / "photos.zip", ("a",), ())
    assert address_of(inside, "a/1.jpg") == ""
    assert address_of(replace(inside, root=tmp_path), "a/1.jpg") == (tmp_path / "a" / "1.jpg").as_uri()
