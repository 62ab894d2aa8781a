"""Labels in a file beside each image: WebDataset, Pascal VOC, JSON files of annotation tools."""

import io
import json
import tarfile

import pytest
from conftest import run_finetune
from PIL import Image
from test_data import draw

from finetune.config.load import load_config
from finetune.data.indexing.build import list_images
from finetune.data.table.voc_xml import read_voc
from finetune.errors import DataError
from finetune.experiment.read_data import read_index

NAMES = ("cat", "dog")
OBJECT = "<object><name>{}</name><difficult>{}</difficult><part><name>head</name></part></object>"


def voc(*objects):
    body = "".join(OBJECT.format(name, difficult) for name, difficult in objects)
    return f"<annotation><filename>x</filename>{body}</annotation>"


def write_beside(root, form, content, *, images="", number=8):
    """Draw images and write a file beside each of them, where `content` says one."""
    draw(root, *(f"{images}{n:03}.png" for n in range(number)))
    for n in range(number):
        path = root / form.format(stem=f"{n:03}", name=f"{n:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content(n))
    return root


BESIDE = {
    "cls": ("{stem}.cls", lambda n: f"{NAMES[n % 2]}\n"),
    "webdataset json": ("{stem}.json", lambda n: json.dumps({"label": NAMES[n % 2], "id": n})),
    "label me": ("{stem}.json", lambda n: json.dumps({"flags": {"cat": not n % 2, "dog": n % 2 == 1}})),
    "supervisely": ("ann/{name}.json", lambda n: json.dumps({"tags": [{"name": NAMES[n % 2]}]})),
    "superannotate": ("{name}___objects.json", lambda n: json.dumps({"tags": [NAMES[n % 2]]})),
    "darwin": ("annotations/{stem}.json", lambda n: json.dumps({"annotations": [{"name": NAMES[n % 2]}]})),
    "label img": ("{stem}.xml", lambda n: voc((NAMES[n % 2], 0), (NAMES[n % 2], 0))),
    "voc": ("Annotations/{stem}.xml", lambda n: voc((NAMES[n % 2], 0), ("owl", 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_the_file_beside_an_image_says_its_class(tmp_path, name):
    form, content = BESIDE[name]
    root = write_beside(tmp_path / "x", form, content, images="img/" if "/" in form else "")
    assert run_finetune("init", root, "--output", tmp_path / "a.yaml").exit_code == 0
    index = read_index(load_config(tmp_path / "a.yaml"))
    said = [index.label_text(sample).removeprefix("flags.") for sample in index.samples]
    assert said == [NAMES[n % 2] for n in range(8)]
    assert not index.task.multilabel
    assert "file of each image" in index.layout.line()


def shard(path, names):
    """Write a shard of WebDataset with the labels of its images."""
    with tarfile.open(path, "w") as archive:
        for number, label in enumerate(names):
            picture = io.BytesIO()
            Image.new("RGB", (16, 16), (40 * number, 0, 9)).save(picture, "JPEG")
            for ending, content in (("jpg", picture.getvalue()), ("cls", label.encode())):
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def test_shards_are_one_data_set_with_the_splits_of_their_names(tmp_path, small_run):
    for name, labels in (("train-000000", "0101"), ("train-000001", "1010"), ("val-000000", "01")):
        shard(tmp_path / f"{name}.tar", labels)
    index = list_images(tmp_path)
    assert index.class_names == ("0", "1")
    assert (index.count("train"), index.count("val")) == (8, 2)
    assert index.samples[0].name == "train-000000.tar/000.jpg"
    assert list_images(tmp_path / "train-000001.tar").count("train") == 4
    answer = run_finetune("predict", small_run, tmp_path / "val-000000.tar", "--json")
    assert (answer.exit_code, len(json.loads(answer.stdout))) == (0, 2)


def test_voc_has_several_classes_and_the_splits_of_its_lists(tmp_path):
    root = write_beside(
        tmp_path / "VOC", "Annotations/{stem}.xml",
        lambda n: voc(("cat", 0), ("dog", n % 2)) if n else voc(("owl", 1)), images="JPEGImages/",
    )  # fmt: skip
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("000\n001\n002\n003\n004  1\n")
    (lists / "val.txt").write_text("005\n006\n")
    (lists / "cat_train.txt").write_text("000 -1\n001  1\n")
    index = list_images(root)
    assert index.task.multilabel
    assert (index.count("train"), index.count("val")) == (5, 2)
    assert [index.label_text(sample) for sample in index.samples[:3]] == ["", "cat", "cat|dog"]
    said = index.layout.line()
    assert "all objects of an image; 5 objects marked as difficult left out; 1 image in no list" in said
    for part in ("JPEGImages", "Annotations/000.xml", "ImageSets/Main/cat_train.txt"):
        with pytest.raises(DataError, match=r"Pascal VOC\.\ndata\.path: .*VOC  "):
            list_images(root / part)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("<annotation><object>", "no XML"),
        ("<html/>", "its first element is 'html'"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>", "has a document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "has a document type"),
        ("<annotation>" + "<a>" * 40, "nested too deeply"),
        ("\ud800", "no XML"),
    ],
)
def test_xml_is_read_without_what_it_may_refer_to(tmp_path, content, why):
    with pytest.raises(ValueError, match=why):
        read_voc(content.encode("utf-8", "surrogatepass"))
    root = write_beside(tmp_path, "{stem}.xml", lambda n: voc(("cat", 0)))
    (root / "003.xml").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=rf"003\.xml: .*{why}.*\nRepair the file"):
        list_images(root)


def test_other_files_beside_images_say_nothing_and_broken_ones_are_named(tmp_path):
    root = write_beside(tmp_path / "a", "{stem}.json", lambda n: json.dumps({"camera": f"x{n}"}))
    with pytest.raises(DataError, match=r"several tables|no class folders"):
        list_images(root)
    (root / "005.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(DataError, match=r"005\.json: no JSON in UTF-8 .*'a' stands twice"):
        list_images(root)
    (root / "005.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(DataError, match=r"005\.json: it has more than 4 MiB"):
        list_images(root)
