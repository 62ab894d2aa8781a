"""Folders and archives as people have them: each is read as what it is by every command, or asked about."""

import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import draw_images, run_finetune, some_quick
from PIL import Image, features

from finetune.config.load import load_config
from finetune.data.images.formats import register_heif
from finetune.data.indexing.build import list_images
from finetune.errors import DataError
from finetune.experiment.read_data import read_index

CLASSES = ("ants", "bees")


def split_folders(train, val):
    """Return what draws a training and another folder of class folders."""

    def draw(root):
        draw_images(root / train, classes=CLASSES, each=8)
        draw_images(root / val, classes=CLASSES, each=4)
        return root

    return draw


def ending(suffix, name):
    """Return what draws class folders of files with one ending."""

    def draw(root):
        register_heif()
        for path in draw_images(root, classes=CLASSES, each=8).rglob("*.png"):
            Image.open(path).save(path.with_suffix(suffix), name)
            path.unlink()
        return root

    return draw


def linked(root):
    real = draw_images(root.parent / "real", classes=CLASSES, each=8)
    root.mkdir()
    for name in CLASSES:
        (root / name).symlink_to(real / name)
    return root


def linked_circle(root):
    draw_images(root, classes=CLASSES, each=8)
    (root / "ants" / "again").symlink_to(root)
    return root


def named(form):
    """Return what draws images whose classes stand in their names."""

    def draw(root):
        real = draw_images(root.parent / "real", classes=CLASSES, each=8)
        root.mkdir()
        for name in CLASSES:
            for number, path in enumerate(sorted((real / name).iterdir())):
                path.rename(root / form.format(label=name, number=number))
        return root

    return draw


def folder_like_an_image(root):
    draw_images(root, classes=("ants", "bees.png"), each=8)
    return root


def zipped(method, top):
    def draw(root):
        real = draw_images(root.parent / "real", classes=CLASSES, each=8)
        with zipfile.ZipFile(root.with_suffix(".zip"), "w", method) as archive:
            for path in sorted(real.rglob("*.png")):
                archive.write(path, top + path.relative_to(real).as_posix())
        return root.with_suffix(".zip")

    return draw


def tarred(root):
    real = draw_images(root.parent / "real", classes=CLASSES, each=8)
    with tarfile.open(root.with_suffix(".tar"), "w") as archive:
        archive.add(real, "photos")
    return root.with_suffix(".tar")


# What is drawn, the line of its layout, and how many images train, validate and test.
SHAPES = {
    "class folders": (lambda root: draw_images(root, classes=CLASSES, each=8), "class folders", (12, 4, 0)),
    "Training/Testing": (split_folders("Training", "Testing"), "train in Training, test in", (12, 4, 8)),
    "TRAIN/VAL": (split_folders("TRAIN", "VAL"), "train in TRAIN, val in VAL", (16, 8, 0)),
    "train/Valid": (split_folders("train", "Valid"), "train in train, val in Valid", (16, 8, 0)),
    "training/validation": (split_folders("training", "validation"), "val in validation", (16, 8, 0)),
    "training_set/dev_set": (split_folders("training_set", "val_set"), "val in val_set", (16, 8, 0)),
    "seg_train/seg_test": (split_folders("seg_train", "seg_test"), "test in seg_test", (12, 4, 8)),
    "train_images/eval_images": (split_folders("train_images", "eval_images"), "val in eval_", (16, 8, 0)),
    "train/train": (split_folders("train/train", "val/val"), "train in train/train, val in", (16, 8, 0)),
    ".jfif": (ending(".jfif", "JPEG"), "class folders", (12, 4, 0)),
    ".jpe": (ending(".jpe", "JPEG"), "class folders", (12, 4, 0)),
    ".JPG": (ending(".JPG", "JPEG"), "class folders", (12, 4, 0)),
    ".heic": (ending(".heic", "HEIF"), "class folders", (12, 4, 0)),
    "linked": (linked, "class folders", (12, 4, 0)),
    "linked-circle": (linked_circle, "class folders", (12, 4, 0)),
    "flat": (named("{label}.{number}.png"), r"file names: labels by ^(.+)\.\d+\.", (12, 4, 0)),
    "pets": (named("{label}_{number}.png"), r"file names: labels by ^(.+)_\d+\.", (12, 4, 0)),
    "number first": (named("{number}-{label}.png"), r"file names: labels by ^\d+-(.+)\.", (12, 4, 0)),
    "extra.png/": (folder_like_an_image, "class folders", (12, 4, 0)),
    "stored.zip": (zipped(zipfile.ZIP_STORED, "photos/"), "class folders", (12, 4, 0)),
    "deflated.zip": (zipped(zipfile.ZIP_DEFLATED, ""), "class folders", (12, 4, 0)),
    ".tar": (tarred, "class folders", (12, 4, 0)),
}
if features.check("avif"):
    SHAPES[".avif"] = (ending(".avif", "AVIF"), "class folders", (12, 4, 0))

SMALL = (
    "data.image_size=32", "data.batch_size=4", "model.arch=shufflenet_v2_x0_5",
    "model.weights=builtin:glyphs", "model.head.hidden=[]", "stages.frozen.epochs=1",
    "stages.frozen.lr=0.01", "stages.unfrozen.epochs=1",
)  # fmt: skip


@pytest.mark.parametrize("shape", some_quick(SHAPES, *list(SHAPES)[::4]))
def test_every_command_reads_it_as_what_it_is(shape, tmp_path):
    draw, line, numbers = SHAPES[shape]
    data, config = draw(tmp_path / "data"), tmp_path / "config.yaml"
    written = run_finetune("init", data, "--output", config)
    assert written.exit_code == 0, written.stderr
    assert line in written.stdout.splitlines()[0]
    index = read_index(load_config(config))
    assert index.class_names == (("ants", "bees.png") if shape == "extra.png/" else CLASSES)
    assert tuple(index.count(split) for split in ("train", "val", "test")) == numbers
    checked = run_finetune("check", config, "--json", *SMALL)
    assert checked.exit_code == 0, checked.stdout
    assert json.loads(checked.stdout)["layout"] == index.layout.to_dict()


@pytest.mark.parametrize(
    "shape", some_quick(["seg_train/seg_test", "pets", "linked", "deflated.zip", ".heic"], "pets")
)
def test_it_trains_and_its_run_predicts_it(shape, tmp_path):
    draw, line, _ = SHAPES[shape]
    data, run = draw(tmp_path / "data"), tmp_path / "run"
    trained = run_finetune("train", data, *SMALL, "--run-dir", run)
    assert trained.exit_code == 0, trained.stderr
    assert line in trained.stdout + trained.stderr
    split = ["--split", "test"] if "seg" in shape else []
    scored = run_finetune("evaluate", run, data, *split)
    assert scored.exit_code == 0
    assert scored.stdout.startswith("layout  ")
    answered = run_finetune("predict", run, data, "--json")
    assert answered.exit_code == 0, answered.stderr
    assert len(json.loads(answered.stdout)) == (24 if "seg" in shape else 16)


def sites(root):
    for name in ("lyon", "oslo"):
        draw_images(root / name, classes=CLASSES, each=4)
    return root


def two_tables(root):
    draw_images(root / "images", classes=("all",), each=4)
    for name in ("labels.csv", "other_labels.csv"):
        (root / name).write_text("image,label\nall/all00.png,x\nall/all01.png,y\n")
    return root


def other_affixes(root):
    return split_folders("old_train", "test_new")(root)


def compressed(root):
    real = draw_images(root.parent / "real", classes=CLASSES, each=2)
    with tarfile.open(root.with_suffix(".tar.gz"), "w:gz") as archive:
        archive.add(real, "photos")
    return root.with_suffix(".tar.gz")


def unexplained(root):
    return named("{number}.png")(root)


ASKED = {
    "sites": (sites, "data.layout: groups"),
    "two tables": (two_tables, "data.path: "),
    "other affixes": (other_affixes, "data.layout: {train: old_train, test: test_new}"),
    "compressed": (compressed, "Unpack it (mkdir data && tar -xf data.tar.gz -C data)"),
    "no classes anywhere": (unexplained, "put the images of each class into a folder of its own"),
}


def files(*names, images="images"):
    """Return what draws images in one folder and writes empty files beside it."""

    def draw(root):
        draw_images(root, classes=(images,), each=4)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("a" if Path(name).suffix else "")
        return root

    return draw


def file(name):
    return lambda root: files(name)(root) / name


def below(name):
    """Return what draws images, and a folder that holds one other file, which is the data set."""
    return lambda root: files(f"x/{name}")(root) / "x"


def classes_below(root):
    draw_images(root / "images", classes=CLASSES, each=1)
    (root / "meta").mkdir()
    return root


def splits_below(root):
    for name in CLASSES:
        draw_images(root / name, classes=("train", "test"), each=1)
    return root


# What is refused, and the line that leads on.
REFUSED = {
    "list beside images": (files("labels.txt", "README.txt"), "the classes? data.path: {root}/labels.txt\n"),
    "annotations": (
        files("annotations/list.txt"), "{root}/annotations/list.txt with data.image_folder: {root}\n",
    ),
    "boxes": (files(*(f"labels/{n}.txt" for n in range(30))), "'labels'; add images, or remove what is n"),
    "classes below": (classes_below, "Did you mean {root}/images?"),
    "splits below": (splits_below, "(test/ants for ants/test), or write data.layout: classes"),
    "holdout before train": (
        split_folders("b_holdout", "of_train"), "data.layout: {{train: of_train, val: b_holdout}}",
    ),
    "faces": (files("1_0.jpg_", images="faces"), "a pattern of names (data.label_pattern: ^([^_]+)_)."),
    "archives": (below("train.zip"), "Archives in a folder are not read: unpack them there"),
    "records": (below("a.tfrecord"), ".tfrecord is a file of records of TensorFlow. Write its images as"),
    "MATLAB": (file("annos.mat"), "loadmat('\"'\"'annos.mat'\"'\"', squeeze_me=True))"),
    "MXNet": (file("train.lst"), "cp train.lst train.tsv"),
    "datasets": (below("data.arrow"), "{root}/x'\"'\"').to_parquet('\"'\"'train.parquet'\"'\"')"),
}  # fmt: skip


@pytest.mark.parametrize("shape", REFUSED)
def test_what_is_refused_says_how_to_go_on(shape, tmp_path):
    draw, line = REFUSED[shape]
    result = run_finetune("init", draw(tmp_path / "data"), "--output", tmp_path / "x.yaml")
    assert result.exit_code == 3
    assert line.format(root=tmp_path / "data") in result.stderr


def test_a_table_whose_images_are_beside_its_folder_is_told_where(tmp_path):
    draw_images(tmp_path / "photos", classes=CLASSES, each=2)
    rows = [f"{path.parent.name}/{path.name},{path.parent.name}" for path in tmp_path.rglob("*.png")]
    table = tmp_path / "lists" / "all.csv"
    table.parent.mkdir()
    table.write_text("\n".join(["image,label", *rows]))
    with pytest.raises(DataError, match=f"\ndata.image_folder: {tmp_path}/photos$"):
        list_images(table)
    written = run_finetune("init", table, "--output", tmp_path / "x.yaml")
    assert f"the images are in {tmp_path}/photos: data.image_folder" in written.stdout
    config = load_config(tmp_path / "x.yaml")
    assert config.data.image_folder == f"{tmp_path}/photos"
    assert read_index(config).class_names == CLASSES


@pytest.mark.parametrize("shape", ASKED)
@pytest.mark.parametrize("command", ["init", "train"])
def test_what_can_be_read_in_two_ways_is_asked_about(shape, command, tmp_path):
    draw, answer = ASKED[shape]
    data = draw(tmp_path / "data")
    before = sorted(Path(tmp_path).rglob("*"))
    more = ["--output", tmp_path / "x.yaml"] if command == "init" else [*SMALL, "--run-dir", tmp_path / "run"]
    result = run_finetune(command, data, *more)
    assert result.exit_code == 3
    assert answer in result.stderr
    assert sorted(Path(tmp_path).rglob("*")) == before


@pytest.mark.parametrize(
    ("layout", "classes"),
    [("groups", CLASSES), ("classes", ("lyon", "oslo")), ("{train: lyon, val: oslo}", CLASSES)],
)
def test_the_key_that_is_named_settles_it(layout, classes, tmp_path):
    data, config = sites(tmp_path / "data"), tmp_path / "config.yaml"
    written = run_finetune("init", data, f"data.layout={layout}", "--output", config)
    assert written.exit_code == 0, written.stderr
    index = read_index(load_config(config))
    assert index.class_names == classes
    trained = run_finetune("train", data, f"data.layout={layout}", *SMALL, "--dry-run")
    assert trained.exit_code == 0, trained.stderr
