"""Folders laid out from a known truth in random shapes are read as that truth, in folders and in archives."""

import os
import random
import shutil
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from finetune.choices import SUFFIXES
from finetune.data.data_layout import ANYHOW, FolderOptions
from finetune.data.indexing.build import list_images
from finetune.errors import FinetuneError

CLASSES = (
    "cat", "dog", "big cat", "007", "7", "NA", "true", "freight train", "tested", "Käuzchen", "猫", "🦉",
    "a,b", 'the "red"', "it's", "=1+1", "-x", "#2", "two\nlines", "\u202eabc", "extra.png", "photos.zip",
    "x.tar", "a..",
)  # fmt: skip
WORDS = {
    "train": ("train", "training", "train_set"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
STEMS = ("a", "img 1", "IMG_0042", "001", "é", "🐜", "x,y", 'q"q', "100%", "v1.2", "-n")
AFFIXES = (("", ""), ("", ""), ("seg_", ""), ("", "_images"), ("my-", ""), ("", "2017"), ("x_", "_2"))
OTHERS = ("notes.txt", ".hidden.jpg", "Thumbs.db", "no_ending", "x.svg")
PATTERNS = {
    "{label}_{n}{end}": r"(?s)^(.+)_\d+\.[^.]*$",
    "{n}-{label}{end}": r"(?s)^\d+-(.+)\.[^.]*$",
    "{label}@{stem}{n}{end}": r"(?s)^(.+)@",
}


@dataclass
class LaidOut:
    """Files in some shape, and what they are."""

    truth: dict = field(default_factory=dict)
    """class and split of each image, by its path"""
    others: list = field(default_factory=list)
    options: FolderOptions = ANYHOW
    links: dict = field(default_factory=dict)
    """folders that are links in the end, and lie somewhere else"""
    kind: str = "class folders"


def split_names(draw, splits):
    before, after = draw(st.sampled_from(AFFIXES))
    names = {}
    for split in splits:
        word = draw(st.sampled_from(WORDS[split]))
        names[split] = before + draw(st.sampled_from((str, str.upper, str.title)))(word) + after
    nested = draw(st.booleans())
    return {split: f"{name}/{name}" if nested else name for split, name in names.items()}


@st.composite
def laid_out(draw):
    """Draw classes, splits and the shape that says them."""
    chosen = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=5, unique=True))
    splits = draw(st.sampled_from(((), ("train", "val"), ("train", "test"), ("train", "val", "test"))))
    shape = draw(st.sampled_from(("folders", "folders", "names", "groups", "said")))
    result = LaidOut()
    if shape == "said":
        splits = splits or ("train", "val")
        folders = dict(zip(splits, ("one", "two", "three"), strict=False))
        result.options = FolderOptions(folders)
    else:
        folders = split_names(draw, splits) if splits else {"train": ""}
    form = draw(st.sampled_from(tuple(PATTERNS)))
    if shape == "names":
        result.options = FolderOptions(label_pattern=PATTERNS[form])
    elif shape == "groups":
        result.options = FolderOptions("groups")
    for split, folder in folders.items():
        for label in chosen:
            for n in range(draw(st.integers(1, 3))):
                end = draw(st.sampled_from(SUFFIXES)).upper() if draw(st.booleans()) else ".jpg"
                stem = draw(st.sampled_from(STEMS))
                group = draw(st.sampled_from(("p1", "p2", "p 3")))
                below = draw(st.sampled_from(("", "", "deeper/", "a b/c/")))
                plain = f"{label}/{below}{stem} {n}{end}"
                name = {
                    "names": f"{below}{form.format(label=label, n=n, stem=stem, end=end)}",
                    "groups": f"{group}/{plain}",
                }.get(shape, plain)
                result.truth[f"{folder}/{name}" if folder else name] = (label, split)
        if draw(st.booleans()):
            result.others.append(f"{folder}/{draw(st.sampled_from(OTHERS))}".strip("/"))
    if shape == "folders" and draw(st.booleans()):
        folder = draw(st.sampled_from(tuple(folders.values())))
        result.links[f"{folder}/{chosen[0]}".strip("/")] = "elsewhere"
    result.kind = {"names": "file names", "groups": "groups of class folders"}.get(
        shape, "split folders" if splits else "class folders"
    )
    return result


def write(layout, root):
    for name in [*layout.truth, *layout.others]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for number, link in enumerate(layout.links):
        target = root.parent / f"elsewhere{number}"
        shutil.move(root / link, target)
        (root / link).symlink_to(target)
    return root


def packed(root, to, top):
    """Pack a folder, with links as what they lead to."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    if to.suffix == ".tar":
        with tarfile.open(to, "w", dereference=True) as archive:
            for path in files:
                archive.add(path, top + path.relative_to(root).as_posix())
    else:
        with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, top + path.relative_to(root).as_posix())
    return to


def check_reading(layout, form):
    """Write what was laid out, read it, and compare."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        root.mkdir()
        data = write(layout, root)
        if form != "folder" and not layout.links:
            data = packed(root, Path(name) / f"data.{form}", "top/")
        try:
            index = list_images(data, folders=layout.options, case_variants="allow")
        except FinetuneError as error:  # of what was drawn, some is asked about, and nothing else
            if "Which are the classes?" not in str(error) or layout.options != ANYHOW:
                raise
            return
        top = data if data == root else data / "top"
        inside = "" if index.root == top else f"{index.root.relative_to(top).as_posix()}/"
        said = [(index.class_names[sample.target], sample.split) for sample in index.samples]
        names = [f"{inside}{sample.name}" for sample in index.samples]
        assert dict(zip(names, said, strict=True)) == layout.truth
        assert index.layout.kind == layout.kind


@pytest.mark.fuzz
@pytest.mark.parametrize("many", [60, pytest.param(1_500, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_folders_say_the_same_in_every_shape(many):
    number = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32) if many > 100 else 5))
    print(f"FUZZ_SEED={number}")
    usual = settings(max_examples=many, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    forms = st.sampled_from(("folder", "folder", "zip", "tar"))
    seed(number)(usual(given(laid_out(), forms)(check_reading)))()
