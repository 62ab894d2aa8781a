"""What validates: groups, folds, and splits that a table gives."""

import random
from pathlib import Path

import pytest
from conftest import draw_images, index_images, run_finetune, write_small_config

from finetune.config.load import load_config
from finetune.config.yaml_writer import dump_config
from finetune.data.indexing.hold_out import group_shares
from finetune.data.split import Fold
from finetune.errors import ConfigError, DataError
from finetune.runs import create_run


@pytest.fixture
def patients(tmp_path):
    """Return a table of 60 images of 9 patients, and draw the images."""
    draw_images(tmp_path, each=20)
    rows = [
        f"{c}/{c}{i:02}.png,{c},p{i * (n + 1) // 7}"
        for n, c in enumerate(("cat", "dog", "owl"))
        for i in range(20)
    ]
    random.Random(0).shuffle(rows)
    (tmp_path / "labels.csv").write_text("\n".join(["image,label,group", *rows]) + "\n")
    return tmp_path / "labels.csv"


def sides_of_groups(index):
    sides = {}
    for sample in index.samples:
        sides.setdefault(sample.group, set()).add(sample.split)
    return sides


def names(index, split="val"):
    return {sample.name for sample in index.of_split(split)}


def test_images_of_one_group_stay_on_one_side(patients):
    index = index_images(patients, seed=1)
    assert len(sides_of_groups(index)) == 9
    assert all(len(sides) == 1 for sides in sides_of_groups(index).values())
    assert 9 <= index.count("val") <= 15


def test_the_shares_that_groups_allow_are_told(patients):
    index = index_images(patients, seed=1)
    text = "2 of 9 groups validate, 23.3% of the images, from 20.0% (dog) to 30.0% (cat) of a class"
    assert group_shares(index) == text
    assert f"split   by group: {text}" in (Path(__file__).parents[1] / "docs" / "tables.md").read_text()
    assert group_shares(index_images("builtin:digits", seed=1)) is None


def test_folds_are_a_partition_of_images_and_groups(patients):
    folds = [index_images(patients, val=Fold(number, 4), seed=1) for number in (1, 2, 3, 4)]
    assert set().union(*map(names, folds)) == {sample.name for sample in folds[0].samples}
    assert sum(len(names(index)) for index in folds) == 60
    for index in folds:
        assert all(len(sides) == 1 for sides in sides_of_groups(index).values())
        assert all(index.counts("train").values())


def test_folds_without_groups_are_stratified(tmp_path):
    draw_images(tmp_path, each=10)
    folds = [index_images(tmp_path, val=Fold(number, 5), seed=1) for number in (1, 2, 3, 4, 5)]
    assert [index.counts("val") for index in folds] == [{"cat": 2, "dog": 2, "owl": 2}] * 5
    assert len(set().union(*map(names, folds))) == 30


def test_folds_beside_a_val_folder_are_refused(tmp_path):
    for part in ("train", "val"):
        draw_images(tmp_path / part, each=2)
    with pytest.raises(DataError, match=r"data.val is fold 1 of 5, but .* holds a folder val"):
        index_images(tmp_path, val=Fold(1, 5), seed=1)


def test_images_of_a_group_may_be_few(tmp_path):
    draw_images(tmp_path, each=2)
    rows = "".join(f"{c}/{c}0{i}.png,{c},one\n" for c in ("cat", "dog") for i in range(2))
    (tmp_path / "t.csv").write_text("image,label,group\n" + rows)
    with pytest.raises(
        DataError, match="nothing to validate on: groups can only be held out whole, and a part of"
    ):
        index_images(tmp_path / "t.csv", seed=1)


def test_a_fold_with_all_of_a_class_is_refused_and_the_others_warn(tmp_path):
    draw_images(tmp_path, each=4)
    rows = "".join(f"cat/cat0{i}.png,cat,one\ndog/dog0{i}.png,dog,g{i}\n" for i in range(4))
    (tmp_path / "t.csv").write_text("image,label,group\n" + rows)
    outcomes = []
    for number in (1, 2):
        try:
            outcomes.append(index_images(tmp_path / "t.csv", val=Fold(number, 2), seed=1).warnings)
        except DataError as error:
            outcomes.append(str(error))
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, str)]
    ((warned,),) = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert refused.startswith("'cat' (4 images): all are of one group, and that is held out in fold")
    assert warned == "classes without an image to validate on: 'cat' (4 images)"


def grouped_rows(*splits):
    """Return rows of two classes, with an image and a group of its own for each split."""
    return "".join(
        f"{c}/{c}0{i}.png,{c},p{i},{split}\n" for c in ("cat", "dog") for i, split in enumerate(splits)
    )


def test_a_split_column_that_tears_a_group_apart_is_refused(tmp_path):
    draw_images(tmp_path, classes=("cat", "dog"), each=3)
    rows = grouped_rows("train", "train", "val")
    (tmp_path / "t.csv").write_text("image,label,group,split\n" + rows)
    index_images(tmp_path / "t.csv", seed=1)
    (tmp_path / "t.csv").write_text("image,label,group,split\n" + rows.replace("p2,val\n", "p1,val\n", 1))
    with pytest.raises(
        DataError,
        match=r"group 'p1' stands in train \(cat/cat01.png, line 3\) and in val \(cat/cat02.png, line 4\)",
    ):
        index_images(tmp_path / "t.csv", seed=1)


def test_groups_of_test_rows_may_not_be_trained_on_either(tmp_path):
    draw_images(tmp_path, classes=("cat", "dog"), each=3)
    rows = grouped_rows("train", "train", "test")
    (tmp_path / "t.csv").write_text("image,label,group,split\n" + rows.replace("p2", "p1"))
    with pytest.raises(DataError, match="group 'p1' stands"):
        index_images(tmp_path / "t.csv", seed=1)


# Given back


def written(index, path):
    path.write_text("image,split,class\n" + "".join(f"{','.join(row)}\n" for row in index.rows()))
    return str(path)


@pytest.mark.parametrize("source", ["folder", "table", "builtin"])
def test_the_split_of_a_run_can_be_given_back(tmp_path, patients, source):
    path = {"folder": tmp_path, "table": patients, "builtin": "builtin:digits"}[source]
    first = index_images(path, val=0.3, seed=1)
    table = written(first, tmp_path / "split.csv")
    assert index_images(path, val=table, seed=2).samples == first.samples


def test_a_given_split_goes_before_folders_and_leaves_out_what_it_does_not_list(tmp_path):
    for part in ("train", "val"):
        draw_images(tmp_path / part, each=2)
    rows = "".join(
        f"train/{c}/{c}0{i}.png,{'val' if i else 'train'}\n" for c in ("cat", "dog", "owl") for i in range(2)
    )
    (tmp_path / "split.csv").write_text("image,split\n" + rows)
    index = index_images(tmp_path, val=str(tmp_path / "split.csv"), seed=1)
    assert (index.count("train"), index.count("val")) == (3, 3)
    assert index.warnings == (f"left out 6 images that {tmp_path}/split.csv does not list",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("cat/cat00.png,train\nx/1.png,val\n", "1 of the 2 images .* not in the data, for instance x/1.png"),
        ("cat/cat00.png,train\ncat/cat01.png,train\n", "has no train images of 'dog', 'owl'"),
        ("cat/cat00.png,train\ndog/dog00.png,train\nowl/owl00.png,train\n", "has no val images of"),
        ("cat/cat00.png,later\n", "line 2: split 'later' is none of train, val"),
    ],
)  # fmt: skip
def test_a_given_split_that_does_not_fit_is_refused(tmp_path, rows, message):
    draw_images(tmp_path, each=2)
    (tmp_path / "split.csv").write_text("image,split\n" + rows)
    with pytest.raises(DataError, match=message):
        index_images(tmp_path, val=str(tmp_path / "split.csv"), seed=1)


def test_a_given_split_may_not_tear_groups_apart(tmp_path, patients):
    index = index_images(patients, val=0.3, seed=1)
    torn = next(sample for sample in index.of_split("train"))
    other = index.samples.index(torn)
    samples = [*index.samples[:other], torn._replace(split="val"), *index.samples[other + 1 :]]
    path = tmp_path / "split.csv"
    path.write_text("image,split\n" + "".join(f"{s.name},{s.split}\n" for s in samples))
    with pytest.raises(DataError, match=f"group '{torn.group}' stands"):
        index_images(patients, val=str(path), seed=1)


def test_odd_names_come_back_from_the_split_of_a_run(tmp_path):
    draw_images(tmp_path / "data", each=4)
    for number, name in enumerate(("=1.png", "'2.png", " 3.png", "a,b.png", "-x.png")):
        (tmp_path / "data" / "cat" / f"cat0{number % 4}.png").with_name(name).write_bytes(
            (tmp_path / "data" / "dog" / "dog00.png").read_bytes()
        )
    (tmp_path / "data" / "dog" / "caf\udce9.png").write_bytes((tmp_path / "data/dog/dog00.png").read_bytes())
    first = index_images(tmp_path / "data", val=0.4, seed=1)
    with create_run(tmp_path / "run", parent=tmp_path, name="run") as run:
        split = first.header, first.rows()
        run.write_beginning(class_names=first.class_names, split=split, files={}, started={})
    given = str(tmp_path / "run" / "split.csv")
    assert index_images(tmp_path / "data", val=given, seed=2).samples == first.samples


# The config


def test_a_fold_is_written_and_read_back(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {path: x, val: {fold: 2, of: 5}}\n")
    config = load_config(path)
    assert (config.data.val.fold, config.data.val.of) == (2, 5)
    path.write_text(dump_config(config))
    assert load_config(path) == config
    assert load_config(path, ["data.val.fold=3"]).data.val.fold == 3


@pytest.mark.parametrize(
    "val",
    ["{fold: 6, of: 5}", "{fold: 0, of: 5}", "{fold: 1}", "{fold: 1, of: 1}", "{fold: 1.0, of: 5}", "{k: 5}"],
)
def test_a_fold_that_cannot_be_is_refused(tmp_path, val):
    path = tmp_path / "c.yaml"
    path.write_text(f"data: {{path: x, val: {val}}}\n")
    with pytest.raises(
        ConfigError, match=r"c.yaml:1 data.val: expected \{fold: N, of: M\} with whole numbers"
    ):
        load_config(path)


def test_the_shares_are_on_screen(tmp_path, patients):
    config = write_small_config(tmp_path, patients)
    result = run_finetune("train", config, "--dry-run", "data.val={fold: 1, of: 4}")
    assert result.exit_code == 0, result.output
    assert "split   by group: " in result.stdout
