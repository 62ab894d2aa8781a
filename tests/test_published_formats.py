"""What annotation tools write says classes or is refused: YOLO, CVAT, VoTT, Datumaro, rows of AutoML."""

import json
import shutil

import pytest
from published import NAMES, PUBLISHED, cvat, lines, pictures, text

from finetune.data.indexing.build import list_images
from finetune.data.table.cvat_xml import read_cvat
from finetune.data.table.ragged_labels import join_ragged_labels
from finetune.data.table.tool_json import datumaro_rows
from finetune.data.table.yolo_txt import class_names, read_yolo
from finetune.errors import DataError


def write(name, root):
    return PUBLISHED[name].write(root) or root


# YOLO


@pytest.mark.parametrize(
    "form",
    [
        "names: ['cat', \"dog\"]\nnc: 2\n",
        "nc: 2\nnames:\n  0: cat\n  1: dog # a pet\n",
        "names:\n- cat\n- dog\nother: 1\n",
        "path: x\nnames:\n  - 'cat'\n  - dog\n",
    ],
)
def test_names_of_classes_are_read_in_the_forms_that_exporters_write(form):
    assert class_names("data.yaml", form) == {"0": "cat", "1": "dog"}
    assert class_names("obj.names", "cat\ndog\n") == {"0": "cat", "1": "dog"}


def test_a_label_file_of_yolo_says_the_classes_in_order():
    assert read_yolo(b"1 0.5 0.5 1 1\n0 0.1 0.1 0.2 0.2 0.3 0.3 .9 1e-3\n01 0 0 0 0\n\n") == ("1", "0")
    assert read_yolo(b"") == ()
    for content in (b"cat\n", b"1 0.5 0.5\n", b"a 0.5 0.5 1 1\n"):
        with pytest.raises(ValueError, match="line 1 is no class number with a box"):
            read_yolo(content)


def test_an_image_with_two_classes_makes_all_have_several(tmp_path):
    write("yolo_of_darknet", tmp_path)
    text(tmp_path / "003.txt", "0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n")
    text(tmp_path / "004.txt", "")
    index = list_images(tmp_path)
    assert index.task.multilabel
    labels = {sample.name: index.labels_of(sample) for sample in index.samples}
    assert (labels["003.jpg"], labels["004.jpg"], labels["005.jpg"]) == (["cat", "dog"], [], ["dog"])


def test_without_names_classes_of_yolo_are_numbers_and_captions_are_none(tmp_path):
    write("yolo_of_darknet", tmp_path)
    (tmp_path / "obj.names").unlink()
    assert list_images(tmp_path).class_names == ("0", "1")
    for path in tmp_path.glob("*.txt"):
        path.write_text("a photograph of a cat")
    with pytest.raises(DataError, match="no class folders"):
        list_images(tmp_path)


def test_the_yaml_of_yolo_leads_to_its_folder(tmp_path):
    write("yolo", tmp_path)
    with pytest.raises(DataError, match=f"is a YAML file.*\n.*data.path: {tmp_path}$"):
        list_images(tmp_path / "data.yaml")


# CVAT


def test_tags_of_whole_images_count_alone_and_subsets_are_splits(tmp_path):
    pictures(tmp_path)
    box = '<box label="{0}" xtl="1"/>'
    marked = cvat('<tag label="{0}"/>' + box.format("owl"))
    subset = marked.replace('id="1', 'subset="Test" id="1').replace("<image id", '<image subset="Train" id')
    text(tmp_path / "annotations.xml", subset)
    index = list_images(tmp_path)
    assert (index.class_names, index.count("test")) == (NAMES, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotations><track/></annotations>", "it has tracks of a video; expected annotations and images"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "it has a document type, which is not read"),
        ("<annotations><image", "no XML"),
        ("<data/>", "its first element is 'data', not 'annotations' as in CVAT"),
        ("<annotations>" + "<a>" * 40, "nested too deeply"),
        (cvat(""), "it looks like CVAT, and no annotation says what an image is"),
        (cvat('<tag label="a|b"/>'), "the label 'a\\|b' holds '\\|'"),
    ],
)
def test_other_xml_is_refused_and_passed_over_beside_class_folders(tmp_path, content, message):
    text(tmp_path / "annotations.xml", content)
    with pytest.raises(DataError, match=f"{message}(.|\n)*annotations of CVAT for images are read"):
        list_images(tmp_path / "annotations.xml")
    pictures(tmp_path, "cat")
    pictures(tmp_path, "dog")
    assert list_images(tmp_path).layout.kind == "class folders"


def test_all_kinds_of_marks_are_read():
    marks = '<polygon label="a"/><mask label="b"/><points label="a"/><other label="c"/>'
    ((_, _, tags, found),) = read_cvat(f'<annotations><image name="x">{marks}</image></annotations>'.encode())
    assert (tags, found) == ((), ("a", "b"))


# JSON of tools


def test_images_without_a_label_are_left_out_and_said(tmp_path):
    write("datumaro", tmp_path)
    path = tmp_path / "annotations" / "train.json"
    found = json.loads(path.read_text())
    found["items"][0]["annotations"] = []
    path.write_text(json.dumps(found))
    index = list_images(tmp_path)
    assert index.count("train") == 7
    assert "1 image without any left out" in index.layout.line()


def test_the_only_file_of_annotations_is_read_by_its_folder_and_by_its_own_path(tmp_path):
    write("datumaro", tmp_path / "both")
    shutil.copytree(tmp_path / "both/images/train", tmp_path / "cvat/images/default")
    file = tmp_path / "cvat/annotations/default.json"
    file.parent.mkdir()
    shutil.copy(tmp_path / "both/annotations/train.json", file)
    by_folder, by_path = list_images(tmp_path / "cvat"), list_images(file)
    assert by_folder.samples == by_path.samples
    assert by_folder.root == by_path.root == tmp_path / "cvat"
    assert {sample.name for sample in by_folder.samples} == {f"images/default/{n:03}.jpg" for n in range(8)}
    assert by_folder.counts("train") == {"cat": 4, "dog": 4}
    assert "annotations/default.json" in by_folder.layout.line()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"categories": {}, "items": []}, "without categories.label.labels"),
        ({"categories": {"label": {"labels": [{"name": "a|b"}]}}, "items": []}, "the label 'a|b' holds"),
        ({"categories": {"label": {"labels": []}}, "items": [1]}, "items that are no objects"),
        (
            {
                "categories": {"label": {"labels": [{"name": "a"}]}},
                "items": [{"id": "x", "annotations": [{"label_id": "1"}]}],
            },
            "item 'x' has the label 1, of which there are 1",
        ),
        ({"categories": {"label": {"labels": [{"name": "a"}]}}, "items": [{}]}, "no annotation says what"),
    ],
)
def test_parts_of_datumaro_that_do_not_fit_are_refused(value, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        datumaro_rows(value, separator="|")


def test_the_images_of_an_export_in_a_folder_of_its_own_are_found(tmp_path):
    write("vott", tmp_path)
    (tmp_path / "vott-json-export").mkdir()
    moved = (tmp_path / "export.json").rename(tmp_path / "vott-json-export" / "export.json")
    with pytest.raises(DataError, match=f"\ndata.image_folder: {tmp_path}$"):
        list_images(moved)


# Rows with several labels


def rows(*texts):
    return [(number, line.split(",")) for number, line in enumerate(texts, start=1)]


@pytest.mark.parametrize(
    ("records", "last"),
    [
        (rows("TRAIN,a.jpg,cat,big", "TEST,b.jpg,dog"), ["cat|big", "dog"]),
        (rows("a.jpg,cat,big,big", "b.jpg,dog"), ["cat|big", "dog"]),
        (rows("TRAIN,a.jpg,cat,big", "TEST,b.jpg,dog,"), ["cat|big", "dog"]),  # as a spreadsheet saves it
        (rows("TRAIN,a.jpg,cat,big", "TEST,b.jpg"), ["cat|big", ""]),
    ],
)
def test_all_cells_behind_the_image_are_labels(records, last):
    joined = join_ragged_labels(records, lambda cell: cell.endswith(".jpg"))
    assert [cells[-1] for _, cells in joined] == last


@pytest.mark.parametrize(
    "records",
    [
        rows("a.jpg,cat,oslo", "b.jpg,dog,"),  # a site that is not known
        rows("a.jpg,cat,12", "b.jpg,dog"),
        rows("a.jpg,cat,big|red", "b.jpg,dog"),
        rows("a.jpg,cat,,big", "b.jpg,dog"),
        rows("x,y,a.jpg,cat,big", "x,y,b.jpg,dog"),
        rows(*[f"{n}.jpg,cat,oslo" for n in range(30)], "b.jpg,dog"),  # one row that is cut off
    ],
)
def test_other_rows_of_different_widths_are_faults(records):
    assert join_ragged_labels(records, lambda cell: cell.endswith(".jpg")) is None


def test_rows_of_faults_are_still_told_with_their_lines(tmp_path):
    pictures(tmp_path)
    text(tmp_path / "a.csv", lines("images/{f},{c},oslo") + "images/x.jpg,cat\n")
    with pytest.raises(DataError, match="line 13: 2 cells for 3 columns"):
        list_images(tmp_path / "a.csv")
