"""Data sets as publishers, platforms and annotation tools lay them out, of twelve tiny pictures each.

Picture `n` is a cat where `n` is even, a dog where it is odd; of three splits the first eight train, then two
validate and two test.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("cat", "dog")
NUMBERS = range(12)
SPLITS = {"train": range(8), "val": range(8, 10), "test": range(10, 12)}
WHOLE, THREE, TWO, TRAIN_TEST = (12, 0, 0), (8, 2, 2), (8, 4, 0), (8, 0, 4)
"""how many pictures train, validate and test before anything is held out"""
BOX = {"bbox": [1, 2, 3, 4]}


@dataclass(frozen=True)
class Published:
    """A data set: what writes it, and what it says."""

    write: Callable[[Path], Path | None]
    """writes it into a folder; returns what is named, if that is not the folder"""
    numbers: tuple[int, int, int]
    class_names: tuple[str, ...]
    several: bool
    keys: dict[str, str]
    """what the config has to say"""


PUBLISHED: dict[str, Published] = {}


def layout(numbers=WHOLE, names=NAMES, *, several=False, **keys):
    """Note what writes a data set, and what it says."""

    def note(write):
        PUBLISHED[write.__name__] = Published(write, numbers, tuple(names), several, keys)
        return write

    return note


def draw(root, *names):
    """Draw a picture at each path: cats are dark, dogs are bright."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digits = "".join(filter(str.isdigit, path.stem))
        noise = np.random.default_rng(int(digits or 0)).integers(0, 60, (40, 44, 3))
        pixels = (noise + 120 * (int(digits or 0) % 2)).astype("uint8")
        Image.fromarray(pixels).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def lines(form, numbers=NUMBERS):
    """Write a line for each picture by its number, name, class and class number."""
    return "".join(form.format(n=n, f=f"{n:03}.jpg", c=NAMES[n % 2], k=n % 2) + "\n" for n in numbers)


def pictures(root, folder="images", numbers=NUMBERS):
    draw(root, *(f"{folder}/{n:03}.jpg" for n in numbers))


def of_classes(root, folder, numbers=NUMBERS):
    draw(root, *(f"{folder}/{NAMES[n % 2]}/{n:03}.jpg" for n in numbers))


@layout(TRAIN_TEST)
def food101(root):
    of_classes(root, "images")
    for name, numbers in (("train", range(8)), ("test", range(8, 12))):
        text(root / f"meta/{name}.txt", lines("{c}/{n:03}", numbers))
        by_class = {c: [f"{c}/{n:03}" for n in numbers if NAMES[n % 2] == c] for c in NAMES}
        text(root / f"meta/{name}.json", json.dumps(by_class))
    text(root / "meta/classes.txt", "cat\ndog\n")


@layout(WHOLE)
def food101_pictures_alone(root):
    food101(root)
    return root / "images"


@layout(THREE)
def textures(root):
    of_classes(root, "images")
    for split, numbers in SPLITS.items():
        text(root / f"labels/{split}1.txt", lines("{c}/{f}", numbers))


@layout(THREE, names=("A320", "Boeing 707"))
def aircraft(root):
    draw(root, *(f"images/{n:07}.jpg" for n in NUMBERS))
    for split, numbers in SPLITS.items():
        rows = (f"{n:07} {('A320', 'Boeing 707')[n % 2]}\n" for n in numbers)
        text(root / f"images_variant_{split}.txt", "".join(rows))


@layout(TRAIN_TEST, names=("001.cat", "002.dog"))
def birds(root):
    files = [f"00{n % 2 + 1}.{NAMES[n % 2]}/{n:03}.jpg" for n in NUMBERS]
    draw(root, *(f"images/{file}" for file in files))
    text(root / "images.txt", "".join(f"{n + 1} {file}\n" for n, file in enumerate(files)))
    text(root / "image_class_labels.txt", "".join(f"{n + 1} {n % 2 + 1}\n" for n in NUMBERS))
    text(root / "classes.txt", "1 001.cat\n2 002.dog\n")
    text(root / "train_test_split.txt", "".join(f"{n + 1} {int(n < 8)}\n" for n in NUMBERS))


@layout(WHOLE, names=("001.cat", "002.dog"))
def birds_pictures_alone(root):
    birds(root)
    return root / "images"


@layout(TWO)
def tiny_imagenet(root):
    for n in range(8):
        draw(root, f"train/{NAMES[n % 2]}/images/{NAMES[n % 2]}_{n}.JPEG")
    for name in NAMES:
        text(root / f"train/{name}/{name}_boxes.txt", f"{name}_0.JPEG\t0\t0\t62\t62\n")
    draw(root, *(f"val/images/val_{n}.JPEG" for n in range(8, 12)), "test/images/test_0.JPEG")
    text(root / "val/val_annotations.txt", lines("val_{n}.JPEG\t{c}\t0\t32\t44\t62", range(8, 12)))
    text(root / "wnids.txt", "cat\ndog\n")


@layout(THREE)
def tables_of_splits(root):
    pictures(root)
    for split, numbers in SPLITS.items():
        text(root / f"{split}.csv", "image,label\n" + lines("images/{f},{c}", numbers))


@layout(THREE)
def tables_beside_folders_of_splits(root):
    for split, numbers in SPLITS.items():
        draw(root, *(f"{split}/{n - numbers[0]}.jpg" for n in numbers))  # the same names in each
        rows = "".join(f"{n - numbers[0]}.jpg,{NAMES[n % 2]}\n" for n in numbers)
        text(root / f"{split}_labels.csv", f"filename,label\n{rows}")


@layout(THREE)
def lists_of_splits(root):
    pictures(root)
    for split, numbers in SPLITS.items():
        text(root / f"{split}.txt", lines("images/{f} {k}", numbers))
    text(root / "classes.txt", "cat\ndog\n")


@layout(TWO)
def kaggle_without_test_labels(root):
    pictures(root)
    text(root / "train.csv", "id,breed\n" + lines("{n:03},{c}", range(8)))
    text(root / "valid.csv", "id,breed\n" + lines("{n:03},{c}", range(8, 12)))
    text(root / "test.csv", "id\n" + lines("{n:03}"))
    text(root / "sample_submission.csv", "id,breed\n" + lines("{n:03},cat"))


@layout(THREE)
def automl(root):
    pictures(root)
    names = {"train": "TRAIN", "val": "VALIDATION", "test": "TEST"}
    rows = [lines(f"{names[split]},gs://b/images/{{f}},{{c}}", n) for split, n in SPLITS.items()]
    text(root / "import.csv", "".join(rows))


@layout(THREE, names=("big", "cat", "dog"), several=True)
def automl_several(root):
    pictures(root)
    names = {"train": "TRAIN", "val": "VALIDATION", "test": "TEST"}
    rows = [
        f"{names[split]},gs://b/images/{n:03}.jpg,{NAMES[n % 2]}{',big' * (n % 3 == 0)}\n"
        for split, numbers in SPLITS.items()
        for n in numbers
    ]
    text(root / "import.csv", "".join(rows))
    return root / "import.csv"


@layout(TRAIN_TEST)
def vertex(root):
    pictures(root)
    rows = [
        {
            "imageGcsUri": f"gs://b/images/{n:03}.jpg",
            "classificationAnnotation": {"displayName": NAMES[n % 2]},
            "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "training" if n < 8 else "test"},
        }
        for n in NUMBERS
    ]
    text(root / "import.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


TAGS = ("haze primary", "primary", "clear", "haze", "clear primary", "clear haze primary")


@layout(WHOLE, names=("clear", "haze", "primary"), several=True, label_separator='" "')
def planet(root):
    draw(root, *(f"train-jpg/train_{n}.jpg" for n in NUMBERS))
    rows = "".join(f"train_{n},{TAGS[n % 6]}\n" for n in NUMBERS)
    text(root / "train_v2.csv", f"image_name,tags\n{rows}")
    return root / "train_v2.csv"


def cvat(mark):
    images = "".join(
        f'<image id="{n}" name="{n:03}.jpg">{mark.format(NAMES[n % 2])}</image>' for n in NUMBERS
    )
    return f'<?xml version="1.0"?>\n<annotations><version>1.1</version>{images}</annotations>'


@layout(WHOLE)
def cvat_tags(root):
    pictures(root)
    text(root / "annotations.xml", cvat('<tag label="{}" source="manual"></tag>'))


@layout(WHOLE)
def cvat_boxes(root):
    pictures(root)
    text(root / "annotations.xml", cvat('<box label="{0}" xtl="1" ytl="1" xbr="9" ybr="9"></box>'))
    return root / "annotations.xml"


@layout(WHOLE)
def vott(root):
    pictures(root, ".")
    assets = {
        str(n): {
            "asset": {"name": f"{n:03}.jpg", "path": f"file:/home/u/{n:03}.jpg", "size": {"width": 24}},
            "regions": [{"type": "RECTANGLE", "tags": [NAMES[n % 2]], "points": [{"x": 1, "y": 2}]}],
        }
        for n in NUMBERS
    }
    tags = [{"name": name, "color": "#fff"} for name in NAMES]
    text(root / "export.json", json.dumps({"name": "p", "tags": tags, "assets": assets, "version": "2.2.0"}))
    return root / "export.json"


@layout(WHOLE)
def vott_csv(root):
    pictures(root, ".")
    text(
        root / "export.csv",
        '"image","xmin","ymin","xmax","ymax","label"\n' + lines('"{f}",1,2,3,4,"{c}"') * 2,
    )


@layout(TWO)
def datumaro(root):
    categories = {"label": {"labels": [{"name": name, "parent": ""} for name in NAMES], "attributes": []}}
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        pictures(root, f"images/{split}", numbers)
        items = [
            {
                "id": f"{n:03}",
                "annotations": [{"id": 0, "type": "label", "label_id": n % 2}],
                "image": {"path": f"{n:03}.jpg", "size": [24, 20]},
            }
            for n in numbers
        ]
        found = {"info": {}, "categories": categories, "items": items}
        text(root / f"annotations/{split}.json", json.dumps(found))


def coco(numbers):
    return json.dumps(
        {
            "images": [{"id": n, "file_name": f"{n:03}.jpg"} for n in numbers],
            "annotations": [{"id": n, "image_id": n, "category_id": n % 2 + 1, **BOX} for n in numbers],
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)],
        }
    )


@layout(TWO)
def coco_2017(root):
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        pictures(root, f"{split}2017", numbers)
        text(root / f"annotations/instances_{split}2017.json", coco(numbers))
        captions = {"images": [], "annotations": [{"image_id": n, "caption": "a pet"} for n in numbers]}
        text(root / f"annotations/captions_{split}2017.json", json.dumps(captions))


@layout(TWO)
def coco_of_roboflow(root):
    for split, numbers in (("train", range(8)), ("valid", range(8, 12))):
        pictures(root, split, numbers)
        text(root / split / "_annotations.coco.json", coco(numbers))


@layout(THREE)
def yolo_classes(root):
    for split, numbers in SPLITS.items():
        of_classes(root, split, numbers)


def boxes(root, folder, numbers=NUMBERS):
    for n in numbers:
        text(root / folder / f"{n:03}.txt", f"{n % 2} 0.5 0.5 0.2 0.2\n{n % 2} 0.1 0.1 0.1 0.1\n")


@layout(TWO)
def yolo(root):
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        pictures(root, f"images/{split}", numbers)
        boxes(root, f"labels/{split}", numbers)
    text(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")


@layout(TWO)
def yolo_of_roboflow(root):
    for split, numbers in (("train", range(8)), ("valid", range(8, 12))):
        pictures(root, f"{split}/images", numbers)
        boxes(root, f"{split}/labels", numbers)
    text(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n")


@layout(WHOLE)
def yolo_of_darknet(root):
    pictures(root, ".")
    boxes(root, ".")
    text(root / "obj.names", "cat\ndog\n")


def voc(name):
    return f"<annotation><filename>x</filename><object><name>{name}</name></object></annotation>"


@layout(TWO)
def pascal_voc(root):
    pictures(root, "JPEGImages")
    for n in NUMBERS:
        text(root / f"Annotations/{n:03}.xml", voc(NAMES[n % 2]))
    text(root / "ImageSets/Main/train.txt", lines("{n:03}", range(8)))
    text(root / "ImageSets/Main/val.txt", lines("{n:03}", range(8, 12)))


@layout(WHOLE)
def webdataset(root):
    pictures(root, ".")
    for n in NUMBERS:
        text(root / f"{n:03}.cls", NAMES[n % 2])


@layout(WHOLE)
def ground_truth(root):
    pictures(root)
    rows = [
        {"source-ref": f"s3://b/images/{n:03}.jpg", "p": n % 2, "p-metadata": {"class-name": NAMES[n % 2]}}
        for n in NUMBERS
    ]
    text(root / "output.manifest", "".join(f"{json.dumps(row)}\n" for row in rows))


@layout(WHOLE, several=False)
def celeba(root):
    pictures(root, "img_align_celeba")
    rows = lines("{f} {k}", NUMBERS).replace(" 0\n", "  1 -1\n").replace(" 1\n", " -1  1\n")
    text(root / "list_attr_celeba.txt", f"12\ncat dog \n{rows}")
    return root / "list_attr_celeba.txt"


@layout(WHOLE)
def label_studio(root):
    pictures(root)
    form = "/data/upload/1/abcdef12-{f},{n},{c},1,2024-01-01T00:00:00Z"
    text(root / "project.csv", "image,id,choice,annotator,created_at\n" + lines(form))


@layout(TRAIN_TEST)
def folders_with_metadata(root):
    for split, numbers in (("train", range(8)), ("test", range(8, 12))):
        pictures(root, split, numbers)
        rows = lines('{{"file_name": "{f}", "label": "{c}"}}', numbers)
        text(root / split / "metadata.jsonl", rows)


@layout(TRAIN_TEST, label_pattern=r"'^(.+)\.\d+\.'")
def dogs_and_cats(root):
    draw(root, *(f"train/{NAMES[n % 2]}.{n}.jpg" for n in range(8)))
    draw(root, *(f"test/{NAMES[n % 2]}.{n}.jpg" for n in range(8, 12)))


@layout(TRAIN_TEST, names=("broken", "good"), layout="{train: train, test: test}")
def defects(root):
    for n in NUMBERS:
        draw(root, f"{'train' if n < 8 else 'test'}/{('good', 'broken')[n % 2]}/{n:03}.png")
    draw(root, "ground_truth/broken/009_mask.png")


@layout(WHOLE, layout="classes/groups")
def classes_of_patients(root):
    draw(root, *(f"{NAMES[n % 2]}/patient_{n // 2 + 10 * (n % 2)}/{n:03}.jpg" for n in NUMBERS))
