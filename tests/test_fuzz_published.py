"""Published layouts written from a known truth say that truth, in folders and in archives."""

import csv
import io
import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from test_fuzz_folders import packed

from finetune.data.indexing.build import list_images
from finetune.data.table import USUAL_COLUMNS, Columns

WORDS = ("cat", "dog", "owl", "Käuzchen", "猫", "x7", "a-b", "it's", "v1.2b", "T_x", "🦉")
NAMES = (*WORDS, "big cat", "Boeing 707", "a & b", '<the "red">', "n/a", "éclair", "x,y", "\u202eabc")
STEMS = (
    "a",
    "img 1",
    "IMG_0042",
    "001",
    "7",
    "é",
    "🐜",
    "it's",
    "v1.2",
    "n-1",
    "猫",
    "b_c",
    "12 x",
    "0009",
    "z&z",
    "q",
)
ENDINGS = (".jpg", ".png", ".JPEG", ".webp")


@dataclass
class Truth:
    """Images, their classes and splits, and whether an image may have several classes."""

    images: dict[str, tuple[tuple[str, ...], str]]
    names: list[str]
    several: bool

    def of(self, split):
        return {image: labels for image, (labels, of) in self.images.items() if of == split}

    @property
    def splits(self):
        return [split for split in ("train", "val", "test") if self.of(split)]


@dataclass
class Written:
    """Files by path, where each image lies in the end, and how the data are named."""

    files: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    named: str = ""
    columns: Columns = USUAL_COLUMNS


@st.composite
def truths(draw, words, splits, several):
    names = draw(st.lists(st.sampled_from(words), min_size=2, max_size=4, unique_by=str.casefold))
    blanks = words is not WORDS  # where labels hold none, blanks are what separates
    stems = [stem for stem in draw(st.permutations(STEMS)) if blanks or " " not in stem]
    images = {}
    for n, stem in enumerate(stems[: 2 * len(names) + 4]):
        labels = {names[n % len(names)]}
        if several:
            labels |= set(draw(st.lists(st.sampled_from(names), max_size=2)))
        split = splits[max(0, n - 2 * len(names)) % len(splits)]
        ending = draw(st.sampled_from(ENDINGS))
        images[stem + ending] = (tuple(name for name in names if name in labels), split)
    assume(not several or any(len(labels) > 1 for labels, _ in images.values()))
    return Truth(images, names, several)


def in_folder(truth, folder):
    return {image: f"{folder}/{image}".lstrip("/") for image in truth.images}


def in_splits(truth, form, of=str):
    return {image: f"{form.format(of(split))}/{image}" for image, (_, split) in truth.images.items()}


def stem(path):
    return os.path.splitext(path)[0]


def webdataset(truth, draw):
    split = len(truth.splits) > 1
    places = in_splits(truth, "{}") if split else in_folder(truth, "")
    kind = (
        draw(st.sampled_from(("json", "json"))) if truth.several else draw(st.sampled_from(("cls", "json")))
    )
    files = {}
    for image, (labels, _) in truth.images.items():
        label = list(labels) if truth.several else labels[0]
        files[f"{stem(places[image])}.{kind}"] = label if kind == "cls" else json.dumps({"label": label})
    return Written(files, places)


def voc(truth, draw):
    objects = {
        image: "".join(f"<object><name>{escape(name)}</name></object>" for name in labels)
        for image, (labels, _) in truth.images.items()
    }
    files = {
        f"Annotations/{stem(image)}.xml": f"<annotation>{body}</annotation>"
        for image, body in objects.items()
    }
    for split in truth.splits if len(truth.splits) > 1 else ():
        files[f"ImageSets/Main/{split}.txt"] = "".join(f"{stem(image)}\n" for image in truth.of(split))
    return Written(files, in_folder(truth, "JPEGImages"))


def manifest(truth, draw):
    numbers = {name: n for n, name in enumerate(truth.names)}
    rows = []
    for image, (labels, _) in truth.images.items():
        row = {"source-ref": f"s3://bucket/x/{image}"}
        if truth.several:
            row |= {"p": [numbers[name] for name in labels]}
            row |= {"p-metadata": {"class-map": {str(n): name for name, n in numbers.items()}}}
        else:
            row |= {"p": numbers[labels[0]], "p-metadata": {"class-name": labels[0]}}
        rows.append(json.dumps(row))
    return Written({"output.manifest": "\n".join(rows)}, in_folder(truth, "images"))


def cub(truth, draw):
    places = {image: f"images/{n % 3}/{image}" for n, image in enumerate(truth.images)}
    numbers = {name: n + 1 for n, name in enumerate(truth.names)}
    rows = list(enumerate(truth.images.items(), start=1))
    files = {
        "images.txt": "".join(f"{n} {places[image].removeprefix('images/')}\n" for n, (image, _) in rows),
        "image_class_labels.txt": "".join(f"{n} {numbers[labels[0]]}\n" for n, (_, (labels, _)) in rows),
        "classes.txt": "".join(f"{n} {name}\n" for name, n in numbers.items()),
        "train_test_split.txt": "".join(f"{n} {int(split == 'train')}\n" for n, (_, (_, split)) in rows),
    }
    return Written(files, places)


def celeba(truth, draw):
    rows = [
        f"{image} {' '.join('1' if name in labels else '-1' for name in truth.names)}"
        for image, (labels, _) in truth.images.items()
    ]
    text = "\n".join([str(len(rows)), " ".join(truth.names), *rows, ""])
    return Written({"list_attr.txt": text}, in_folder(truth, "img_align"), "list_attr.txt")


def planet(truth, draw):
    rows = "".join(f"{stem(image)},{' '.join(labels)}\n" for image, (labels, _) in truth.images.items())
    written = Written({"train_v2.csv": f"image_name,tags\n{rows}"}, in_folder(truth, "jpg"), "train_v2.csv")
    written.columns = Columns(label_separator=" ")
    return written


def automl(truth, draw):
    words = {"train": "TRAIN", "val": "VALIDATION", "test": "TEST"}
    rows = [
        [*([words[split]] if len(truth.splits) > 1 else []), f"gs://bucket/{image}", *labels]
        for image, (labels, split) in truth.images.items()
    ]
    widths = [len(row) for row in rows]
    assume(not truth.several or sum(width < max(widths) for width in widths) >= 1)
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return Written({"import.csv": file.getvalue()}, in_folder(truth, "photos"), "import.csv")


def yolo(truth, draw):
    places = in_splits(truth, draw(st.sampled_from(("images/{}", "{}/images"))))
    numbers = {name: n for n, name in enumerate(truth.names)}
    rows = {
        image: "".join(f"{numbers[name]} 0.5 0.5 0.1 0.25\n" for name in labels)
        for image, (labels, _) in truth.images.items()
    }
    files = {
        f"{stem(place.replace('images/', 'labels/', 1))}.txt": rows[image] for image, place in places.items()
    }
    quoted = [f'"{name}"' for name in truth.names]
    files["data.yaml"] = draw(
        st.sampled_from(
            (
                f"nc: 9\nnames: [{', '.join(quoted)}]\n",
                "names:\n" + "".join(f"  {n}: {name}\n" for n, name in enumerate(quoted)) + "nc: 9\n",
                "names:\n" + "".join(f"- {name}\n" for name in quoted),
            )
        )
    )
    return Written(files, places)


def cvat(truth, draw):
    kind = draw(st.sampled_from(("tag", "box", "polygon")))
    splits = len(truth.splits) > 1
    images = "".join(
        f"<image name={quoteattr(image)} {f'subset={quoteattr(split.title())}' * splits}>"
        + "".join(f"<{kind} label={quoteattr(name)}/>" for name in labels)
        + "</image>"
        for image, (labels, split) in truth.images.items()
    )
    return Written({"annotations.xml": f"<annotations>{images}</annotations>"}, in_folder(truth, "images"))


def coco(truth, draw):
    places = in_splits(truth, "{}2017")
    files = {}
    for split in truth.splits:
        images = list(truth.of(split).items())
        found = {
            "images": [{"id": n, "file_name": image} for n, (image, _) in enumerate(images)],
            "annotations": [
                {"image_id": n, "category_id": truth.names.index(name)}
                for n, (_, labels) in enumerate(images)
                for name in labels
            ],
            "categories": [{"id": n, "name": name} for n, name in enumerate(truth.names)],
        }
        files[f"annotations/instances_{split}2017.json"] = json.dumps(found)
    return Written(files, places)


def datumaro(truth, draw):
    places = in_splits(truth, "images/{}")
    labels = {"label": {"labels": [{"name": name} for name in truth.names]}}
    files = {}
    for split in truth.splits:
        items = [
            {
                "id": stem(image),
                "image": {"path": image},
                "annotations": [{"type": "label", "label_id": truth.names.index(name)} for name in labels],
            }
            for image, labels in truth.of(split).items()
        ]
        files[f"annotations/{split}.json"] = json.dumps({"categories": labels, "items": items})
    return Written(files, places)


def tables(truth, draw):
    form = draw(st.sampled_from(("{}", "labels_{}", "{}_labels", "lists/{}", "my-{}-2020")))
    places = draw(st.sampled_from((in_folder(truth, "images"), in_splits(truth, "{}"))))
    named = draw(st.booleans())
    files = {}
    for split in truth.splits:
        file = io.StringIO()
        rows = [[image, labels[0]] for image, labels in truth.of(split).items()]
        csv.writer(file).writerows([["file", "what"], *rows] if named else rows)
        files[f"{form.format(split)}.csv"] = file.getvalue()
    return Written(files, places)


def lists_of_paths(truth, draw):
    places = {image: f"images/{labels[0]}/{image}" for image, (labels, _) in truth.images.items()}
    folder = draw(st.sampled_from(("meta", "splits", "labels")))
    ends = draw(st.booleans())
    shown = {image: place.removeprefix("images/") for image, place in places.items()}
    files = {
        f"{folder}/{split}.txt": "".join(
            f"{shown[image] if ends else stem(shown[image])}\n" for image in truth.of(split)
        )
        for split in truth.splits
    }
    return Written(files, places)


ONE, TRAIN_TEST, ALL = ("train",), ("train", "test"), ("train", "val", "test")
NO_SLASH = tuple(name for name in NAMES if "/" not in name)
NO_QUOTE = tuple(name for name in NAMES if '"' not in name and "," not in name)
# The writer, the names that it can hold, its splits, and whether an image may have several classes.
WRITERS: tuple[tuple[Callable, tuple, tuple, tuple], ...] = (
    (webdataset, NAMES, (ONE, ALL), (False, True)),
    (voc, NAMES, (ONE, ("train", "val")), (False, True)),
    (manifest, NAMES, (ONE,), (False, True)),
    (cub, NAMES, (TRAIN_TEST,), (False,)),
    (celeba, WORDS, (ONE,), (False, True)),
    (planet, WORDS, (ONE,), (True,)),
    (automl, NAMES, (ONE, ALL), (False, True)),
    (yolo, NO_QUOTE, (TRAIN_TEST, ALL), (False, True)),
    (cvat, NAMES, (ONE, ALL), (False, True)),
    (coco, NAMES, (("train", "val"), ALL), (False, True)),
    (datumaro, NAMES, (("train", "val"), ALL), (False, True)),
    (tables, NAMES, (TRAIN_TEST, ALL), (False,)),
    (lists_of_paths, NO_SLASH, (TRAIN_TEST, ALL), (False,)),
)


@st.composite
def published(draw):
    """Draw a truth, and write it in one of the published forms."""
    write, names, splits, several = draw(st.sampled_from(WRITERS))
    truth = draw(truths(names, draw(st.sampled_from(splits)), draw(st.sampled_from(several))))
    return truth, write(truth, draw), write.__name__


def check_reading(drawn, form):
    """Write what was drawn, read it, and compare."""
    truth, written, _ = drawn
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        for place in written.places.values():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).touch()
        for path, text in written.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        data = root if form == "folder" else packed(root, Path(name) / f"data.{form}", "top/")
        top = data if form == "folder" else data / "top"
        index = list_images(top / written.named if written.named else data, columns=written.columns)
        inside = "" if index.root == top else f"{index.root.relative_to(top).as_posix()}/"
        said = {f"{inside}{s.name}": (set(index.labels_of(s)), s.split) for s in index.samples}
        assert said == {
            written.places[image]: (set(labels), split) for image, (labels, split) in truth.images.items()
        }
        assert index.task.multilabel == truth.several


@pytest.mark.parametrize("many", [60, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_published_layout_says_the_same_in_every_form(many):
    number = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32) if many > 100 else 5))
    print(f"FUZZ_SEED={number}")
    usual = settings(max_examples=many, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    forms = st.sampled_from(("folder", "folder", "zip", "tar"))
    seed(number)(usual(given(published(), forms)(check_reading)))()
