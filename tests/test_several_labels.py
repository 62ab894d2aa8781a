"""Images that may have several classes: tables, splits, and a run from the first command to the last."""

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from asgi import answer as served
from asgi import form, same
from conftest import draw_images, index_images, run_finetune, write_small_config
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from run_result import result_of
from several import COLOURS, draw_several
from test_resume import CONFIG, as_if_killed_at

from finetune.commands.evaluate.evaluate import own_index
from finetune.commands.report.judged import Judged
from finetune.config.config import Config
from finetune.config.load import load_config
from finetune.data.images import ImageLimits
from finetune.data.index import ImageIndex, Sample
from finetune.data.indexing.hold_out import hold_out
from finetune.data.indexing.match_classes import match_classes
from finetune.data.loading.dataset import EvalImages
from finetune.data.loading.loaders import build_eval_loader
from finetune.data.loading.transforms import eval_transform
from finetune.data.split import Fold
from finetune.data.table import Columns
from finetune.errors import ConfigError, DataError
from finetune.experiment.read_data import read_index
from finetune.metrics.multi_label import label_probabilities
from finetune.model.preprocessing import Preprocessing
from finetune.runs.trained_model import load_trained
from finetune.task import MultiLabel, SingleLabel

NAMES = Columns(label_separator=";")
MARKS = Columns(label=("cat", "dog", "bird"))


def write(folder, text, name="labels.csv"):
    """Write a table, and draw the images that its first column names."""
    (folder / name).write_text(text)
    for row in list(csv.reader(io.StringIO(text)))[1:]:
        Image.new("RGB", (12, 12)).save(folder / row[0])
    return folder / name


def labels_of(index):
    return {s.name: [index.class_names[label] for label in s.labels] for s in index.samples}


def names_table(*cells):
    return "image,label\n" + "".join(f'{i}.png,"{cell}"\n' for i, cell in enumerate(cells))


def marks_table(*cells):
    return "image,cat,dog,bird\n" + "".join(f"{i}.png,{cell}\n" for i, cell in enumerate(cells))


# What cells say


def test_a_cell_holds_several_names_with_blanks_around_them_or_none(tmp_path):
    path = write(tmp_path, names_table("dog; cat", " ", "cat", "owl ;dog", "", "owl"))
    index = index_images(path, columns=NAMES, seed=1)
    assert index.task == MultiLabel()
    assert index.class_names == ("cat", "dog", "owl")
    assert labels_of(index) == {
        "0.png": ["cat", "dog"],
        "1.png": [],
        "2.png": ["cat"],
        "3.png": ["dog", "owl"],
        "4.png": [],
        "5.png": ["owl"],
    }
    assert sorted(index.rows())[0][2] == "cat|dog"


@pytest.mark.parametrize(
    ("separator", "cell"), [(" ", "a  b "), ("|", "a | b"), (", ", "a,  b"), ("::", "a::b")]
)
def test_anything_separates(tmp_path, separator, cell):
    path = write(tmp_path, names_table(cell, "a", "b", cell))
    assert labels_of(index_images(path, columns=Columns(label_separator=separator), seed=1))["0.png"] == [
        "a",
        "b",
    ]


def test_columns_of_marks_are_classes_in_the_order_of_the_list(tmp_path):
    path = write(tmp_path, marks_table("1,0,0", "0.0,1.0,TRUE", "false, 1 ,1", "0,0,False", "1,0,1", "1,1,0"))
    index = index_images(path, columns=MARKS, seed=1)
    assert index.class_names == ("cat", "dog", "bird")
    assert labels_of(index)["1.png"] == ["dog", "bird"]
    assert labels_of(index)["3.png"] == []
    assert [index.target(s) for s in index.samples if s.name == "1.png"] == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("columns", "text", "message"),
    [
        (NAMES, names_table("a;b;a", "b"), r"  line 2: the label 'a;b;a' has 'a' twice"),
        (NAMES, names_table("a", "b;;a"), r"  line 3: the label 'b;;a' has an empty name between its sep"),
        (MARKS, marks_table("1,0,2", "0,1,0"), r"  line 2: column 'bird' holds '2'; expected 1 or 0"),
        (MARKS, marks_table("1,0,1", "0,,0"), r"  line 3: column 'dog' holds ''; expected 1 or 0"),
        (MARKS, marks_table("1,some,1"), r"  line 2: column 'dog' holds 'some'; expected 1 or 0"),
        (NAMES, "image,label\n1.png,a;b\n1.png,a\n", r"  line 3: 1.png: label 'a', but 'a, b' in line 2"),
        (
            NAMES,
            names_table("a|b", "c"),
            r"class 'a\|b' holds '\|', which stands between .*; rename the class",
        ),
        (NAMES, names_table("a", "", "a"), r"need at least 2 classes; .* have 1: 'a' \(2 images\)"),
        (NAMES, names_table("Cat", "cat;dog"), r"classes 'Cat' and 'cat' differ only in case"),
        (MARKS, marks_table("1,0,0", "1,1,0"), r"no row to train on has 'bird'; take the columns of classes"),
        (NAMES, names_table("a", "b;a", "a"), r"too few images to train and validate on in 'b' \(1 image\)"),
    ],
)
def test_cells_that_cannot_be_are_told_with_their_line(tmp_path, columns, text, message):
    with pytest.raises(DataError, match=message) as caught:
        index_images(write(tmp_path, text), columns=columns, seed=1)
    assert caught.value.exit_code == 3


def test_a_class_that_all_images_have_is_warned_of(tmp_path):
    path = write(tmp_path, names_table("a;b", "a", "a;b", "a"))
    (line,) = index_images(path, columns=NAMES, seed=1).warnings
    assert line == f"classes of {path} that all images to train on have: 'a' (4 images)"


def test_a_class_that_looks_like_several_names_is_warned_of(tmp_path):
    path = write(tmp_path, names_table("a;b", "b", "a;b", "a", "c;d", "c;d", "b", "a"))
    (line,) = index_images(path, seed=1).warnings
    assert line.endswith(
        "is made of other classes; if an image may have several, set data.label_separator: ';'"
    )
    lone = write(tmp_path, names_table("a;b", "c", "a;b", "c"), "lone.csv")
    assert index_images(lone, seed=1).warnings == ()


def test_labels_put_together_from_fewer_names_are_asked_about(tmp_path):
    tags = ("haze primary", "primary", "haze water", "haze", "water primary", "haze primary water")
    path = write(tmp_path, names_table(*tags * 3))
    with pytest.raises(DataError, match=r"such as 'haze primary' are put together from 3 names, in 6 ways"):
        index_images(path, seed=1)
    several = index_images(path, columns=Columns(label_separator=" "), seed=1)
    assert several.class_names == ("haze", "primary", "water")
    single = index_images(path, columns=Columns(whole_cells=True), seed=1)
    assert (single.class_names, single.warnings) == (tuple(sorted(tags)), ())
    for value, number in (("null", 6), ("' '", 3)):
        target = tmp_path / f"{number}.yaml"
        made = run_finetune("init", path, f"data.label_separator={value}", "--output", target)
        assert made.exit_code == 0, made.output
        assert len(read_index(load_config(target)).class_names) == number
    alike = write(
        tmp_path, names_table(*("red cat", "blue cat", "red dog", "blue dog", "red owl") * 2), "b.csv"
    )
    assert index_images(alike, seed=1).warnings == ()


def test_classes_and_rows_of_a_split_column_are_compared_with_those_to_train_on(tmp_path):
    start = "image,label,split\n1.png,a;b,train\n2.png,b,train\n3.png,a,train\n"
    index = index_images(write(tmp_path, start + "4.png,b,val\n"), columns=NAMES, seed=1)
    assert index.warnings == (f"classes of {tmp_path}/labels.csv without a val row: 'a' (2 images)",)
    with pytest.raises(DataError, match=r"have classes that its train rows have not: 'c' \(1 image\)"):
        index_images(write(tmp_path, start + "4.png,b;c,val\n"), columns=NAMES, seed=1)
    with pytest.raises(DataError, match=r"no val row of .* has a class; there would be nothing to score"):
        index_images(write(tmp_path, start + "4.png,,val\n"), columns=NAMES, seed=1)


def test_a_column_that_is_not_there_is_a_mistake_of_the_config(tmp_path):
    path = write(tmp_path, marks_table("1,0,1", "0,1,0"))
    columns = Columns(label=("cat", "dogs"))
    with pytest.raises(ConfigError, match=r"data.columns.label: .* no column 'dogs'; .*did you mean 'dog'\?"):
        index_images(path, columns=columns, seed=1)


def config(**data):
    return Config.model_validate({"data": {"path": "x.csv", **data}})


def test_a_config_has_one_way_to_say_it():
    assert config(columns={"label": ["a", "b"]}).data.columns.label == ("a", "b")
    assert config(label_separator=" ").data.label_separator == " "
    with pytest.raises(ConfigError, match=r"data.columns.label is a list, whose cells hold no names"):
        config(columns={"label": ["a", "b"]}, label_separator=";")
    with pytest.raises(ConfigError, match="expected at least two columns, one for each class, and none"):
        config(columns={"label": ["a", "a"]})
    with pytest.raises(ConfigError, match="expected the name of a column, or a list of columns"):
        config(columns={"label": ["a", 1]})
    with pytest.raises(ConfigError, match="expected what stands between the names of classes, for inst"):
        config(label_separator="")


@pytest.mark.parametrize("columns", [NAMES, MARKS])
def test_on_a_folder_it_has_no_effect_and_that_is_said(tmp_path, columns):
    index = index_images(draw_images(tmp_path, each=2), columns=columns, seed=1)
    assert index.task == SingleLabel()
    assert "without effect: data.path is no table" in index.warnings[0]


def test_images_cannot_be_counted_out_by_class(tmp_path):
    path = write(tmp_path, names_table("a;b", "b", "a", "a;b"))
    with pytest.raises(
        ConfigError, match=r"data.images_per_class: the images of .* may have several classes"
    ):
        index_images(path, columns=NAMES, images_per_class=1, seed=1)


def test_a_table_is_matched_with_the_classes_of_a_model(tmp_path):
    path = write(tmp_path, names_table("cat;owl", "owl", "", "dog"))
    found = match_classes(path, ["cat", "dog", "eel"], columns=NAMES)
    assert labels_of(found.index) == {"0.png": ["cat"], "1.png": [], "2.png": [], "3.png": ["dog"]}
    assert (found.unknown, found.missing) == ({"owl": 2}, ("eel",))
    with pytest.raises(DataError, match="the labels there are 'cat', 'owl', 'dog', the model knows 'x'"):
        match_classes(path, ["x"], columns=NAMES)
    with pytest.raises(DataError, match="is no table: the model gives an image several classes, and folders"):
        match_classes(draw_images(tmp_path / "folders"), ["cat", "dog"], columns=NAMES)


def test_batches_hold_0_and_1_for_each_class(tmp_path):
    path = write(tmp_path, names_table("a;b", "", "b", "a;b", "c", "c;a"))
    index = index_images(path, columns=NAMES, seed=1)
    transform = eval_transform(Preprocessing(8, 8, (0.5,) * 3, (0.25,) * 3, "bilinear"))
    loader = build_eval_loader(EvalImages(index, ImageLimits(), transform, split="train"))
    ((_, targets),) = list(loader)
    assert targets.dtype == torch.float32
    assert targets.tolist() == [index.target(sample) for sample in index.of_split("train")]


# Splits


def drawn(seed, *, groups):
    """Draw an index of 40 to 120 images with up to 6 classes of very different size, some images without."""
    rng = np.random.default_rng(seed)
    images, classes = int(rng.integers(40, 120)), int(rng.integers(2, 7))
    there = rng.random((images, classes)) < rng.uniform(0.03, 0.7, classes)
    there[:, there.sum(0) < 2] = True
    samples = tuple(
        Sample(f"{i:03}", tuple(np.flatnonzero(row).tolist()), "train", f"g{i // 2}" if groups else None)
        for i, row in enumerate(there)
    )
    return ImageIndex(None, tuple(f"c{c}" for c in range(classes)), samples, task=MultiLabel())


@given(st.integers(0, 2**32), st.sampled_from([0.2, 0.35, Fold(2, 5)]))
@settings(max_examples=15, deadline=None)
def test_every_class_is_on_both_sides_with_about_its_share(seed, how):
    index = hold_out(drawn(seed, groups=False), how, seed)
    share = 0.2 if isinstance(how, Fold) else how
    train, val = index.counts("train"), index.counts("val")
    for name in index.class_names:
        assert train[name] >= 1
        # Of two images only two of five folds can have one.
        assert val[name] >= 1 or (isinstance(how, Fold) and train[name] < how.of)
        assert abs(val[name] - share * (train[name] + val[name])) < 2
    assert abs(index.count("val") - share * len(index.samples)) < 0.05 * len(index.samples)


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_groups_of_images_stay_on_one_side(seed):
    index = hold_out(drawn(seed, groups=True), 0.25, seed)
    sides = {}
    for sample in index.samples:
        sides.setdefault(sample.group, set()).add(sample.split)
    assert all(len(on) == 1 for on in sides.values())
    assert abs(index.count("val") - 0.25 * len(index.samples)) < 0.08 * len(index.samples)


def test_a_fold_with_all_of_a_class_is_refused():
    samples = [Sample(f"{i}", (i % 2,), "train", f"g{i}") for i in range(8)]
    samples += [Sample(f"x{i}", (0, 2), "train", "one") for i in range(2)]
    index = ImageIndex(None, ("a", "b", "c"), tuple(samples), task=MultiLabel())
    outcomes = []
    for number in (1, 2):
        try:
            outcomes.append(hold_out(index, Fold(number, 2), 1).warnings)
        except DataError as error:
            outcomes.append(str(error))
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert refused.startswith("'c' (2 images): all are of one group, and that is held out in fold")
    assert ("classes without an image to validate on: 'c' (2 images)",) in outcomes


def test_folds_have_all_images_and_none_twice():
    index = drawn(3, groups=False)
    parts = [hold_out(index, Fold(number, 4), 1).of_split("val") for number in (1, 2, 3, 4)]
    assert sorted(s.name for part in parts for s in part) == [s.name for s in index.samples]


def test_the_split_does_not_depend_on_the_order_of_the_rows():
    index = drawn(3, groups=False)
    turned = ImageIndex(None, index.class_names, index.samples[::-1], task=MultiLabel())
    one, other = (hold_out(each, 0.2, 1).of_split("val") for each in (index, turned))
    assert sorted(one) == sorted(other)


# From end to end


SEPARATED = 'data.label_separator=";"'


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return the table of 64 images of up to three colours."""
    return draw_several(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Return the directory of a finished run; tests only read it."""
    folder = tmp_path_factory.mktemp("run")
    config = write_small_config(folder, data)
    result = run_finetune("train", config, "--run-dir", folder / "run", SEPARATED, "stages.unfrozen.epochs=4")
    assert result.exit_code == 0, result.output
    (folder / "run" / "stdout").write_text(result.stdout)
    return folder / "run"


def read(run, name):
    return json.loads((run / name).read_text())


def history(run):
    return list(csv.DictReader((run / "history.csv").read_text().splitlines()))


def test_a_model_learns_to_give_every_class_of_an_image(run):
    scores = read(run, "report.json")["val"]
    assert scores["map"] > 0.95
    assert scores["accuracy"] > 0.6
    assert [row["name"] for row in scores["per_class"]] == ["blue", "green", "red"]
    stdout = (run / "stdout").read_text()
    assert ": 3 classes, 1.5 an image, images: " in stdout
    assert "accuracy       mAP      time" in stdout
    assert f"mAP {scores['map']:.4f}   macro F1 {scores['macro_f1']:.4f}" in stdout
    assert "class  AP      threshold  precision  recall  F1      images" in stdout


def test_what_was_auto_is_decided_in_the_config_of_the_run(run):
    text = (run / "config.yaml").read_text()
    assert "monitor: val_map\n" in text
    assert "name: binary_cross_entropy\n" in text


def test_the_best_epoch_is_that_of_the_highest_map(run):
    rows, best = history(run), read(run, "model.json")["best"]
    values = [float(row["val_map"]) for row in rows]
    expected = rows[values.index(max(values))]
    assert (best["stage"], str(best["epoch"])) == (expected["stage"], expected["epoch"])
    assert best["val_map"] == read(run, "report.json")["val"]["map"]


def test_the_thresholds_of_the_best_model_are_recorded_with_it(run, small_run):
    model, scores = read(run, "model.json"), read(run, "report.json")["val"]
    assert model["multilabel"] is True
    assert model["thresholds"] == [row["threshold"] for row in scores["per_class"]]
    one = read(small_run, "model.json")
    assert (one["multilabel"], one["thresholds"]) == (False, None)


def test_the_split_says_all_classes_of_an_image(run, data):
    rows = list(csv.DictReader((run / "split.csv").read_text().splitlines()))
    said = {row["image"]: row["label"].split(";") for row in csv.DictReader(data.read_text().splitlines())}
    assert {row["image"]: row["class"] for row in rows} == {
        name: "|".join(sorted(labels)) for name, labels in said.items()
    }
    assert any(row["class"] == "" for row in rows)


def test_evaluating_gives_the_scores_of_the_report(run):
    result = run_finetune("evaluate", run, "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert 0 <= scores.pop("confidence")["expected_calibration_error"] <= 1
    assert scores == read(run, "report.json")["val"]
    shown = run_finetune("evaluate", run, "--split", "train").stdout
    assert "all labels right" in shown


def test_another_table_is_scored_with_the_thresholds_of_the_run(run, data, tmp_path):
    other = draw_several(tmp_path, each=2)
    result = run_finetune("evaluate", run, other, "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert [row["threshold"] for row in scores["per_class"]] == read(run, "model.json")["thresholds"]
    assert [row["support"] for row in scores["per_class"]] == [8, 8, 8]
    (tmp_path / "folders").mkdir()
    refused = run_finetune(
        "evaluate", run, draw_images(tmp_path / "folders", classes=("red", "blue"), each=2)
    )
    assert refused.exit_code == 3
    assert "is no table: the model gives an image several classes" in refused.stderr


def test_an_image_gets_all_classes_at_or_above_their_threshold(run, data):
    result = run_finetune("predict", run, data, "--json", "--top-k", 1)
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    calibrated = load_trained(run, torch.device("cpu")).calibrated_thresholds
    thresholds = dict(zip(("blue", "green", "red"), calibrated, strict=True))
    truth = [set(row["label"].split(";")) - {""} for row in csv.DictReader(data.read_text().splitlines())]
    assert np.mean([set(a["labels"]) == t for a, t in zip(answers, truth, strict=True)]) > 0.6
    for answer in answers:
        (entry,) = answer["predictions"]
        assert entry["threshold"] == thresholds[entry["class"]]
        if entry["probability"] >= entry["threshold"]:
            assert entry["class"] in answer["labels"]
    assert {len(answer["labels"]) for answer in answers} >= {0, 1, 2, 3}


def test_csv_says_of_each_class_whether_it_is_assigned(run, data):
    result = run_finetune("predict", run, data, "--csv", "--top-k", 1)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0]) == ["image", "rank", "class", "probability", "assigned", "unsure", "unlike", "error"]
    whole = json.loads(run_finetune("predict", run, data, "--json").stdout)
    for answer in whole:
        mine = [row for row in rows if row["image"] == answer["image"]]
        assert [row["class"] for row in mine if row["assigned"] == "1"] == answer["labels"]
        assert mine[0]["rank"] == "1"


def test_the_table_gives_labels_then_what_comes_next(run, data, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    result = run_finetune(
        "predict", run, data.parent / "007.png", data.parent / "000.png", tmp_path / "broken.png"
    )
    assert result.exit_code == 3
    head, all_three, none, broken = result.stdout.splitlines()[:4]
    assert head.split() == ["image", "labels", "next", "most", "probable", "remark"]
    assert all(colour in all_three for colour in COLOURS)
    assert " –  " in none
    assert "not an image" in broken


def test_probabilities_are_asked_of_each_class_on_its_own():
    logits = torch.tensor([[0.0, 0.0, 40.0]])
    assert label_probabilities(logits)[0, :2].tolist() == [0.5, 0.5]


def test_what_is_beside_an_image_helps_to_give_several_classes(data, tmp_path):
    config = write_small_config(tmp_path, data)
    keys = [SEPARATED, "data.columns.metadata={red: number}", "stages.frozen.epochs=6"]
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", *keys)
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "run", "report.json")["val"]["map"] > 0.8
    answers = run_finetune("predict", tmp_path / "run", data, "--json")
    assert len(json.loads(answers.stdout)) == 64
    own = json.loads(run_finetune("evaluate", tmp_path / "run", "--json").stdout)
    del own["confidence"]
    assert own == read(tmp_path / "run", "report.json")["val"]
    keys = ["data.columns.label=[red, green, blue]", "data.columns.metadata=[red]"]
    refused = run_finetune("train", config, "--run-dir", tmp_path / "other", *keys)
    assert refused.exit_code == 2
    assert "data.columns.metadata: 'red' is the column for the label of" in refused.stderr


def test_columns_of_marks_train_the_same_model_as_names(run, data, tmp_path):
    config = write_small_config(tmp_path, data)
    keys = ["data.columns.label=[blue, green, red]", "stages.unfrozen.epochs=4"]
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", *keys)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "split.csv").read_bytes() == (run / "split.csv").read_bytes()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    other = run_finetune("evaluate", tmp_path / "run", data, "--json")
    assert json.loads(other.stdout)["images"] == 64


def test_the_split_of_a_run_can_be_given_back(run, data):
    index = index_images(data, columns=NAMES, val=str(run / "split.csv"), seed=99)
    rows = csv.reader((run / "split.csv").read_text().splitlines())
    assert [list(row) for row in index.rows()] == list(rows)[1:]


def test_the_page_is_made_anew_with_heat_maps_and_the_interval_of_map(run, tmp_path):
    result = run_finetune("report", run, "--output", tmp_path / "page.html", "--json")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text()
    assert '<div class="both">' in page
    assert re.search(r"mAP<small>\(0\.\d{3} – [01]\.\d{3}\)</small>", page)
    assert "Doubtful labels" not in page
    scores = read(run, "report.json")["val"]["per_class"]
    missed = {row["name"]: round(row["support"] * (1 - row["recall"])) for row in scores}
    found = re.findall(r"<summary><b>(\w+)</b> <span class=\"soft\">missed in (\d+) images?<", page)
    assert {name: int(number) for name, number in found} == {n: k for n, k in missed.items() if k}
    assert run_finetune("evaluate", run, "--html", tmp_path / "own.html", "--quiet").exit_code == 0
    assert "Certainty" in (tmp_path / "own.html").read_text()


def test_what_is_missed_and_given_wrongly_stands_furthest_from_the_truth_first(run):
    trained = load_trained(run, torch.device("cpu"))
    index = own_index(trained)
    targets = torch.tensor([index.target(sample) for sample in index.of_split("val")])
    logits = 20.0 * (2 * targets - 1)
    rows = targets[:, 0].nonzero()[:, 0].tolist()
    logits[rows[0], 0], logits[rows[1], 0] = -8.0, -9.0
    without = (targets[:, 1] == 0).nonzero()[0].item()
    logits[without, 1] = 7.0
    found = Judged(trained, index, "val", logits, targets).wrong_labels()
    assert found == [(0, True, [rows[1], rows[0]]), (1, False, [without])]


def test_the_page_shows_thresholds_and_no_confusion_matrix(run):
    page = (run / "report.html").read_text()
    scores = read(run, "report.json")["val"]
    assert f"<title>run: mAP {scores['map']:.4f} — finetune</title>" in page
    assert "<th>AP</th><th>threshold</th>" in page
    assert f"<td>{scores['per_class'][0]['threshold']:.4f}</td>" in page
    assert "Confusion" not in page


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([SEPARATED, "loss.name=cross_entropy"], "loss.name: cross_entropy is for images of one class, and"),
        (["data.path=builtin:digits", "loss.name=binary_cross_entropy"], "loss.name: binary_cross_entropy"),
        ([SEPARATED, "data.balance=sampler"], "data.balance: sampler shows images by their class, and"),
        ([SEPARATED, "data.images_per_class=3"], "data.images_per_class: the images of"),
        (["data.columns.label=[red]"], "data.columns.label: expected at least two columns"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_images_is_a_mistake_of_the_config(data, tmp_path, keys, message):
    config = write_small_config(tmp_path, data)
    for command in (("train", config, "--run-dir", tmp_path / "run"), ("check", config), ("groups", config)):
        result = run_finetune(*command, *keys)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "keys",
    [
        ("loss.name=focal", "loss.label_smoothing=0.1", "monitor=val_macro_f1"),
        ("data.balance=loss", "early_stopping.patience=1", "monitor=val_loss", "stages.unfrozen.epochs=6"),
    ],
)
def test_losses_balance_and_early_stopping_go_with_it(data, tmp_path, keys):
    config = write_small_config(tmp_path, data)
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", SEPARATED, *keys)
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "run", "report.json")["val"]["map"] > 0.6
    assert ("balance loss: a positive counts from" in result.stdout) == ("data.balance=loss" in keys)


def test_a_rate_is_found_by_the_loss_and_accuracy_of_the_task(data, tmp_path):
    config = write_small_config(tmp_path, data)
    keys = (SEPARATED, "lr_finder.steps=30", "lr_finder.race_steps=12", "data.batch_size=4")
    result = run_finetune("lr-find", config, *keys, "--stage", "unfrozen", "--json")
    assert result.exit_code == 0, result.output
    racers = [racer for racer in json.loads(result.stdout)["race"] if racer["val_loss"] is not None]
    assert min(racer["val_loss"] for racer in racers) < np.log(2)
    assert all(0 <= racer["val_accuracy"] <= 1 for racer in racers)


@pytest.mark.slow
def test_training_goes_on_bit_for_bit(data, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(path=data))
    keys = (
        SEPARATED,
        "data.balance=loss",
        "loss.name=focal",
        "stages.frozen.epochs=1",
        "stages.frozen.lr=auto",
    )
    finished = tmp_path / "finished"
    result = run_finetune("train", config, "--run-dir", finished, *keys, "stages.unfrozen.lr=1e-3")
    assert result.exit_code == 0, result.output
    names = sorted(os.listdir(finished / "checkpoints"))
    for name in (names[0], names[4], names[-4]):
        as_if_killed_at(name, finished, tmp_path / name)
        result = run_finetune("train", "--resume", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert result_of(tmp_path / name) == result_of(finished)


def test_check_tells_of_copies_with_other_labels_and_counts_images_without_a_class(data, tmp_path):
    root = shutil.copytree(data.parent, tmp_path / "data")
    shutil.copy(root / "003.png", root / "002.png")  # red and green, green
    shutil.copy(root / "003.png", root / "000.png")  # nothing
    config = write_small_config(tmp_path, root / "labels.csv")
    result = run_finetune("check", config, SEPARATED, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (copied,) = [found for found in document["findings"] if found["kind"] == "copies-two-labels"]
    assert copied["message"] == "the same file with different labels: 1 group of images"
    (item,) = copied["items"]
    assert {image["name"]: image["classes"] for image in item["images"]} == {
        "000.png": [],
        "002.png": ["green"],
        "003.png": ["green", "red"],
    }
    assert "no class" in item["detail"]
    shown = run_finetune("check", config, SEPARATED).stdout
    assert "3 classes, 64 images, 8 of them without a class" in shown


def test_thresholds_that_do_not_fit_the_classes_are_damage(run, tmp_path, short_waits):
    shutil.copytree(run, tmp_path / "run")
    for thresholds in ([0.5], None):
        model = {**read(run, "model.json"), "thresholds": thresholds}
        (tmp_path / "run" / "model.json").write_text(json.dumps(model))
        result = run_finetune("evaluate", tmp_path / "run")
        assert result.exit_code == 5
        assert "model.json is damaged or was changed" in result.stderr


def test_a_served_model_gives_labels_as_predict_does(run, data):
    pytest.importorskip("fastapi", reason="needs the extra serve")
    path = sorted(data.parent.rglob("*.png"))[0]
    predicted = json.loads(run_finetune("predict", run, path, "--json", "--top-k", "2").stdout)
    trained = load_trained(run, torch.device("cpu"))
    (found,) = served(trained, form((str(path), path.read_bytes()), top_k="2"))
    assert same(found.json, predicted)
    assert {"labels", "predictions"} <= found.json[0].keys()


@pytest.mark.slow
def test_runs_of_several_labels_are_compared_on_a_page(run, data, tmp_path):
    keys = (SEPARATED, "stages.frozen.lr=1e-6", "stages.unfrozen.lr=1e-6", "stages.unfrozen.epochs=1")
    done = run_finetune("train", write_small_config(tmp_path, data), *keys, "--run-dir", tmp_path / "other")
    assert done.exit_code == 0, done.output
    compared = run_finetune("compare", run, tmp_path / "other", "--html", "page.html", "--json")
    assert compared.exit_code == 0, compared.output
    text = Path("page.html").read_text(encoding="utf-8")
    (other,) = json.loads(compared.stdout)["compared"]
    assert text.count("✓") == text.count("✗") == len(other["first_right"]) + len(other["this_right"]) > 0
    assert ">mAP<" in text
