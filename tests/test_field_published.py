"""Data sets as they are published say what they say, and train; what is ambiguous in them is asked about."""

import json

import pytest
import yaml
from conftest import run_finetune
from published import PUBLISHED

import finetune
from finetune.config.load import load_config
from finetune.data.data_layout import ANYHOW, FolderOptions
from finetune.data.indexing.build import list_images
from finetune.data.table import USUAL_COLUMNS, Columns
from finetune.experiment.read_data import read_index

TINY = (
    "data.image_size=32", "data.batch_size=4", "data.workers=0", "model.arch=shufflenet_v2_x0_5",
    "model.weights=builtin:glyphs", "model.head.hidden=[]",
    "stages=[{name: head, train: head, epochs: 1, lr: 0.01}]",
)  # fmt: skip


def write(name, root):
    root.mkdir(exist_ok=True)
    return PUBLISHED[name].write(root) or root


def read(name, root):
    """Read a data set as its config says."""
    data = PUBLISHED[name]
    keys = {key: yaml.safe_load(value) for key, value in data.keys.items()}
    columns = Columns(label_separator=keys["label_separator"]) if "label_separator" in keys else USUAL_COLUMNS
    folders = ANYHOW
    if keys.keys() & {"layout", "label_pattern"}:
        folders = FolderOptions(keys.get("layout", "auto"), keys.get("label_pattern"))
    return list_images(write(name, root), columns=columns, folders=folders)


def init_keys(name):
    """Return what has to be said; `init` itself proposes patterns of names, and what separates classes."""
    return [
        f"data.{key}={value}"
        for key, value in PUBLISHED[name].keys.items()
        if key not in ("label_pattern", "label_separator")
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_data_set_says_what_its_publisher_meant(name, tmp_path):
    index, data = read(name, tmp_path / "data"), PUBLISHED[name]
    assert index.class_names == data.class_names
    assert index.task.multilabel == data.several
    assert tuple(index.count(split) for split in ("train", "val", "test")) == data.numbers
    for sample in index.samples if not data.several else ():
        number = int("".join(filter(str.isdigit, sample.name.rpartition("/")[2])))
        if name != "tables_beside_folders_of_splits":
            assert sample.target == (1 - number % 2 if name == "defects" else number % 2), sample.name


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (n % 4 > 0)) for n, name in enumerate(PUBLISHED)]
)
def test_init_writes_a_config_that_says_the_same(name, tmp_path):
    data, target = PUBLISHED[name], tmp_path / "config.yaml"
    path = write(name, tmp_path / "data")
    made = run_finetune("init", path, *init_keys(name), "--output", target)
    assert made.exit_code == 0, made.output
    index = read_index(load_config(target))
    assert index.class_names == data.class_names
    assert index.task.multilabel == data.several
    assert index.count("test") == data.numbers[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PUBLISHED)[::9])
def test_a_data_set_is_checked_and_trained_on(name, tmp_path):
    train_on(name, tmp_path)


def train_on(name, tmp_path):
    """Check a data set, and train a head on it for an epoch."""
    config = tmp_path / "config.yaml"
    made = run_finetune("init", write(name, tmp_path / "data"), *init_keys(name), "--output", config)
    assert made.exit_code == 0, made.output
    checked = run_finetune("check", config, *TINY, "--json")
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["images"] == sum(PUBLISHED[name].numbers)
    trained = run_finetune("train", config, *TINY, "--run-dir", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    assert tuple(finetune.load(tmp_path / "run").classes) == PUBLISHED[name].class_names
