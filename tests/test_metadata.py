"""Metadata of images: what its columns mean, how they enter the head, and how they get there."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from asgi import answer, as_json, base64_of, form, same
from conftest import draw_images, index_images, run_finetune
from hypothesis import given
from hypothesis import strategies as st
from run_result import result_of
from test_resume import as_if_killed_at
from torch.nn import functional

from finetune.config.config import Config
from finetune.config.load import parse_config
from finetune.config.yaml_writer import dump_config
from finetune.data.builtin import turned_digits
from finetune.data.metadata import CategoryColumn, Metadata, NumberColumn, fit_metadata, is_number
from finetune.data.table import Columns
from finetune.errors import ConfigError
from finetune.model.head import Head, MetadataInputs, embedding_width
from finetune.runs.checksummed import load_checksummed
from finetune.runs.trained_model import load_trained

# What cells mean


def test_categories_are_looked_up_and_what_is_missing_or_new_is_the_first():
    metadata = Metadata((CategoryColumn("site", ("north", "south")), CategoryColumn("lens", ("7", "07"))))
    assert metadata.encode(("north", "07")) == ([1, 2], [])
    assert metadata.encode(("south", "")) == ([2, 0], [])
    assert metadata.encode(("east", "7.0")) == ([0, 0], [])


def test_numbers_are_standardised_by_the_training_rows_and_flagged_where_they_are_missing():
    metadata = fit_metadata({"age": "number", "dose": "number"}, [("10", "1"), ("30", ""), ("", "1")])
    assert metadata.columns == (NumberColumn("age", 20.0, 10.0), NumberColumn("dose", 1.0, 0.0))
    assert metadata.encode(("40", "")) == ([], [2.0, 0.0, 0.0, 1.0])
    assert metadata.encode(("", "5")) == ([], [0.0, 0.0, 1.0, 0.0])  # equal in training: it says nothing


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([str(n) for n in range(20)], "category"),
        ([str(n) for n in range(21)], "number"),
        (["0.5", "1", "1", ""], "number"),
        (["-1e-3", "+2", ".5", "7."], "number"),
        (["007", "7"], "category"),
        ([*map(str, range(30)), "NA"], "category"),
        (["1_000.5", "2.5"], "category"),
        (["nan", "inf", "1.5"], "category"),
        (["2024-01-01", "2024-01-02"], "category"),
        (["", ""], "category"),
    ],
)
def test_a_column_is_one_of_numbers_by_the_rule_of_fastai(cells, kind):
    (column,) = fit_metadata({"x": "auto"}, [(cell,) for cell in cells]).columns
    assert isinstance(column, NumberColumn) == (kind == "number")


def test_names_that_look_like_numbers_stay_names():
    metadata = fit_metadata({"site": "category"}, [("1",), ("01",), ("1.0",), ("true",), ("",)])
    assert metadata.categories[0].categories == ("01", "1", "1.0", "true")
    assert len({metadata.encode((cell,))[0][0] for cell in ("1", "01", "1.0", "true", "")}) == 5


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), min_size=1, max_size=12))
def test_what_a_column_means_survives_json_for_any_text(rows):
    metadata = fit_metadata({"a": "auto", "b": "category"}, rows)
    again = Metadata.from_dict(json.loads(json.dumps(metadata.to_dict())))
    assert again == metadata
    assert [again.encode(cells) for cells in rows] == [metadata.encode(cells) for cells in rows]
    assert metadata.unseen(rows) == {}


@given(st.text(alphabet="0123456789+-.eE_ nanif٣", max_size=8))
def test_every_number_can_be_computed_with(cell):
    if is_number(cell):
        assert np.isfinite(np.float32(float(cell)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("rows", [2, 3, 5, 30, 100, 5000, 200_000])
def test_widths_are_those_of_fastai(rows):
    from fastai.tabular.model import emb_sz_rule

    assert embedding_width(rows) == emb_sz_rule(rows)


# The head


def make_head(**options):
    torch.manual_seed(3)
    inputs = MetadataInputs(embeddings=((4, 3), (2, 5)), numbers=2, **options)
    return Head(6, 3, hidden=(8,), metadata=inputs)


def make_inputs(n=16):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(n, 6, 2, 2, generator=generator)
    categories = torch.stack([torch.arange(n) % 4, torch.arange(n) % 2], dim=1)
    numbers = torch.cat([torch.randn(n, 2, generator=generator), torch.zeros(n, 2)], dim=1)
    return features, categories, numbers


def test_an_embedding_is_a_one_hot_vector_times_its_table_in_values_and_gradients():
    head, (features, categories, numbers) = make_head().eval(), make_inputs()
    targets = torch.arange(16) % 3
    functional.cross_entropy(logits := head(features, categories, numbers), targets).backward()

    tables = [table.weight.detach().clone().requires_grad_() for table in head.embeddings]
    one_hot = [
        functional.one_hot(categories[:, k], len(table)).float() @ table for k, table in enumerate(tables)
    ]
    multiplied = head.layers(torch.cat([head.pooled(features), *one_hot, numbers], dim=1))
    functional.cross_entropy(multiplied, targets).backward()
    torch.testing.assert_close(logits, multiplied, rtol=0, atol=0)
    for table, expected in zip(head.embeddings, tables, strict=True):
        torch.testing.assert_close(table.weight.grad, expected.grad, rtol=1e-6, atol=1e-9)
        assert expected.grad.abs().sum() > 0


def test_training_takes_a_part_of_the_cells_for_missing_and_evaluation_none():
    head = make_head(dropout=0.25)
    categories, numbers = torch.ones(20_000, 2, dtype=torch.int64), torch.tensor([[3.0, 4.0, 0.0, 0.0]])
    dropped, values = head._dropped(categories, numbers.repeat(20_000, 1))
    assert set(dropped.flatten().tolist()) == {0, 1}
    assert abs(float((dropped == 0).double().mean()) - 0.25) < 0.01
    kinds, counts = values.unique(dim=0, return_counts=True)
    assert kinds.tolist() == [[0, 0, 1, 1], [0, 4, 1, 0], [3, 0, 0, 1], [3, 4, 0, 0]]
    assert abs(int(counts[3]) / 20_000 - 0.75**2) < 0.01
    features, categories, numbers = make_inputs()
    head.eval()
    assert torch.equal(head(features, categories, numbers), head(features, categories, numbers))
    head.train()
    assert not torch.equal(head(features, categories, numbers), head(features, categories, numbers))


def test_metadata_has_the_same_say_as_thousands_of_features():
    torch.manual_seed(0)
    head = Head(1024, 3, hidden=(256,), metadata=MetadataInputs(embeddings=((5, 4),)))
    weight = head.layers[2].weight.detach()
    image, metadata = weight[:, :-4].pow(2).sum(), weight[:, -4:].pow(2).sum()
    assert 0.8 < float(image / metadata) < 1.25
    assert 0.9 < float(weight.pow(2).sum()) / (2 * 256) < 1.1  # of unit inputs, as He et al. draw them


def test_a_head_without_metadata_is_drawn_as_ever():
    torch.manual_seed(5)
    plain = Head(6, 3, hidden=(8,))
    torch.manual_seed(5)
    other = Head(6, 3, hidden=(8,), metadata=MetadataInputs())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))


# The built-in table


def test_sixes_and_nines_of_the_built_in_table_are_told_apart_by_the_site_alone():
    upright = {}
    for name, label, site in turned_digits.rows():
        if label in "69":
            picture = turned_digits.load_image(name)
            upright.setdefault((label, turned_digits.TURNED[site] > 0.5), []).append(np.asarray(picture))
    six, turned_six = np.mean(upright["6", False], axis=0), np.mean(upright["6", True], axis=0)
    nine, turned_nine = np.mean(upright["9", False], axis=0), np.mean(upright["9", True], axis=0)
    apart = np.abs(six - nine).mean()
    assert np.abs(six - turned_nine).mean() < 0.4 * apart
    assert np.abs(nine - turned_six).mean() < 0.4 * apart
    labels = [label for _, label, _ in turned_digits.rows()]
    assert (labels.count("6"), labels.count("9")) == (91, 90)


def test_the_built_in_table_is_indexed_like_any_table():
    index = index_images("builtin:turned-digits", seed=1, columns=Columns(metadata={"site": "auto"}))
    assert index.metadata.categories[0].categories == ("east", "north", "south", "west")
    assert index.warnings == ()
    assert index.header == ("image", "split", "class", "metadata.site")
    assert len(index.of_split("val")) == pytest.approx(0.2 * len(index.samples), abs=10)
    without = index_images("builtin:turned-digits", seed=1)
    assert without.metadata is None
    assert "not used: 'site'; data.columns.metadata names those" in without.warnings[0]


# Config


def columns_of(metadata):
    return Config.model_validate({"data": {"path": "x", "columns": {"metadata": metadata}}}).data.columns


def test_columns_are_named_in_a_list_or_with_their_kinds():
    assert columns_of(["site", "age"]).metadata == {"site": "auto", "age": "auto"}
    kinds = {"no: ": "category", "1": "number"}
    assert columns_of(kinds).metadata == kinds
    config = Config.model_validate({"data": {"path": "x", "columns": {"metadata": kinds}}})
    assert parse_config(dump_config(config), "x.yaml") == config


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ("site", "expected a list of column names"),
        ([1], "expected a list of column names"),
        (["site", "site"], "names a column twice"),
        ({"site": "text"}, "expected a list of column names"),
        ([""], "expected a list of column names"),
    ],
)
def test_columns_that_cannot_be_are_refused(metadata, text):
    with pytest.raises(ConfigError, match=text):
        columns_of(metadata)


@pytest.mark.parametrize("width", [0, 5000, True, "4", {"site": 0}, {"": 1}])
def test_widths_that_cannot_be_are_refused(width):
    with pytest.raises(ConfigError, match="expected null, a width from 1 to 4096"):
        Config.model_validate({"data": {"path": "x"}, "model": {"head": {"embedding_width": width}}})


# From a table to a prediction

CONFIG = """\
precision: float32
data:
  {{path: "{path}", image_size: 32, batch_size: 8, augment: light, workers: 0,
    columns: {{metadata: [site, age]}}}}
model: {{arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {{hidden: [16]}}}}
checkpoint: {{every: 1, keep: 1000}}
lr_finder: {{steps: 20, race_steps: 4, start: 1e-5}}
stages:
  - {{name: frozen, train: head, epochs: 1, lr: 1e-2}}
  - {{name: unfrozen, train: all, epochs: 1, lr: "slice(auto/100, auto)"}}
"""


def read_table(path):
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def write_table(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Return a folder with images, a table of them and a config; every fifth site is missing."""
    root = tmp_path_factory.mktemp("collection")
    draw_images(root / "images")
    names = sorted(str(path.relative_to(root)) for path in (root / "images").rglob("*.png"))
    rows = [
        (
            name,
            name.split("/")[1],
            ("north", "south", "=east")[n % 3] if n % 5 else "",
            f"{20 + n}.5" if n % 4 else "",
            "val" if n % 4 == 1 else "train",
        )
        for n, name in enumerate(names)
    ]
    write_table(root / "labels.csv", [("image", "label", "site", "age", "split"), *rows])
    (root / "config.yaml").write_text(CONFIG.format(path=root / "labels.csv"))
    return root


@pytest.fixture(scope="module")
def run(collection):
    result = run_finetune("train", collection / "config.yaml", "--run-dir", collection / "run")
    assert result.exit_code == 0, result.output
    assert "metadata site: 3 categories" in result.stdout
    assert "metadata age: a number, 39 ± 10.3" in result.stdout
    assert "metadata ablation, on validation images" in result.stdout
    assert "without site, age" in result.stdout
    return collection / "run"


def test_the_run_says_what_its_columns_were_taken_for(run):
    config = parse_config((run / "config.yaml").read_text(), "config.yaml")
    assert config.data.columns.metadata == {"site": "category", "age": "number"}
    description = json.loads((run / "model.json").read_text())
    assert [column["name"] for column in description["metadata"]] == ["site", "age"]
    assert description["model"]["head"]["metadata"] == {"embeddings": [[4, 3]], "numbers": 1, "dropout": 0.1}
    header, first = read_table(run / "split.csv")[:2]
    assert header == ["image", "split", "class", "metadata.site", "metadata.age"]
    assert first[0] == "images/cat/cat00.png"


def test_embeddings_learn_in_the_frozen_stage_and_the_backbone_does_not(run):
    event = next(
        e for e in map(json.loads, (run / "events.jsonl").read_text().splitlines()) if e["event"] == "stage"
    )
    names = sorted(os.listdir(run / "checkpoints"))
    first, _ = load_checksummed(run / "checkpoints" / names[0])
    last, _ = load_checksummed(run / "checkpoints" / next(n for n in reversed(names) if n.startswith("00-")))
    assert event["stage"] == "frozen"
    moved = {name for name in first if name.startswith("model.") and not torch.equal(first[name], last[name])}
    assert "model.head.embeddings.0.weight" in moved
    assert all(name.startswith("model.head.") for name in moved)


def test_groups_show_embeddings_in_the_group_of_the_head(collection):
    result = run_finetune("groups", collection / "config.yaml", "--json")
    head = json.loads(result.stdout)["groups"][-1]
    table = next(layer for layer in head["layers"] if layer["type"] == "Embedding")
    assert (table["name"], table["shape"]) == ("head.embeddings.0", [4, 3])
    assert "metadata site: 3 categories" in run_finetune("groups", collection / "config.yaml").output


@pytest.mark.slow
def test_a_run_with_metadata_goes_on_bit_for_bit(run, tmp_path):
    names = sorted(os.listdir(run / "checkpoints"))
    for name in (names[1], names[-3]):
        as_if_killed_at(name, run, tmp_path / name)
        result = run_finetune("train", "--resume", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert result_of(tmp_path / name) == result_of(run)


def test_a_changed_cell_is_noticed_when_a_run_goes_on(collection, run, tmp_path):
    name = sorted(os.listdir(run / "checkpoints"))[1]
    as_if_killed_at(name, run, tmp_path / "killed")
    table = collection / "labels.csv"
    before = table.read_text()
    table.write_text(before.replace("cat01.png,cat,south", "cat01.png,cat,north"))
    try:
        result = run_finetune("train", "--resume", tmp_path / "killed")
    finally:
        table.write_text(before)
    assert result.exit_code == 5
    assert "images of another class, split or metadata: 1, images/cat/cat01.png" in result.stderr


def test_evaluate_gives_what_training_reported_for_the_run_and_for_its_table(collection, run):
    reported = json.loads((run / "report.json").read_text())["val"]
    for data in ((), (collection / "labels.csv",)):
        result = run_finetune("evaluate", run, *data, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["loss"] == pytest.approx(reported["loss"], rel=1e-5)


def write_untold(collection):
    rows = read_table(collection / "labels.csv")
    return write_table(collection / "untold.csv", [(row[0], row[1], row[4]) for row in rows])


def test_the_report_says_what_each_column_is_worth(collection, run):
    report = json.loads((run / "report.json").read_text())
    without = {tuple(row["without"]): row for row in report["ablations"]}
    assert list(without) == [("site",), ("age",), ("site", "age")]
    rows = read_table(collection / "labels.csv")
    blank = [rows[0], *([name, label, "", age, split] for name, label, _, age, split in rows[1:])]
    table = write_table(collection / "blank.csv", blank)
    scores = json.loads(run_finetune("evaluate", run, table, "--json").stdout)
    assert without["site",]["val_loss"] == pytest.approx(scores["loss"], rel=1e-5)
    assert without["site",]["val_accuracy"] == scores["accuracy"]
    nothing = json.loads(run_finetune("evaluate", run, write_untold(collection), "--json").stdout)
    assert without["site", "age"]["val_loss"] == pytest.approx(nothing["loss"], rel=1e-5)
    assert without["site",]["val_loss"] != report["val"]["loss"]
    page = (run / "report.html").read_text()
    assert "Metadata ablation" in page
    assert '<div class="both">' in page, "heat maps know the metadata of their images"


def test_a_folder_tells_nothing_beside_its_images(collection, run):
    result = run_finetune("evaluate", run, collection / "images", "--json")
    assert result.exit_code == 0, result.output
    assert "metadata columns 'site', 'age' are not in" in result.stderr
    assert "the model treats them as missing" in result.stderr


def test_new_categories_and_missing_columns_are_told_and_work(collection, run, tmp_path):
    rows = read_table(collection / "labels.csv")[1:]
    shutil.copytree(collection / "images", tmp_path / "images")
    table = write_table(
        tmp_path / "new.csv", [("image", "label", "site"), *((r[0], r[1], "mars") for r in rows)]
    )
    result = run_finetune("evaluate", run, table, "--json")
    assert result.exit_code == 0, result.output
    assert "'site': 36 of 36 images have categories that training has not seen, 'mars' (36)" in result.stderr
    assert "metadata column 'age' is not in" in result.stderr
    nothing = run_finetune("evaluate", run, collection / "images", "--json")
    assert json.loads(result.stdout) == json.loads(nothing.stdout)


def predictions(*arguments):
    result = run_finetune("predict", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [answer["predictions"] for answer in json.loads(result.stdout)], result.stderr


def test_predict_takes_metadata_from_its_table_or_from_another_or_from_the_command_line(
    collection, run, tmp_path
):
    image = collection / "images" / "cat" / "cat01.png"
    row = ("images/cat/cat01.png", "north", "33")
    table = write_table(collection / "one.csv", [("image", "site", "age"), row])
    elsewhere = write_table(tmp_path / "metadata.csv", [("image", "site", "age"), (image, "north", "33")])
    expected, said = predictions(run, table)
    assert said == f"layout  table: images in column 'image'; 1 row of {table}\n"
    by_table, said = predictions(run, image, "--metadata", elsewhere)
    assert said == ""
    by_value, _ = predictions(run, image, "--metadata", "site=north", "--metadata", "age=33")
    assert expected == by_table == by_value
    other, _ = predictions(run, table, "--metadata", "site=south")
    assert other != expected
    untold, said = predictions(run, image)
    assert untold != expected
    assert "are not in what was given" in said
    assert "--metadata gives it" in said


def test_images_that_no_table_of_metadata_lists_are_counted(collection, run, tmp_path):
    images = [collection / "images" / "cat" / f"cat0{n}.png" for n in range(3)]
    table = write_table(tmp_path / "metadata.csv", [("image", "site"), (images[0], "north")])
    _, said = predictions(run, *images, "--metadata", table)
    assert "column 'age' is not in what was given" in said
    assert "2 of 3 images are not in the tables of --metadata" in said


def test_a_cell_that_a_table_leaves_empty_was_asked_for_all_the_same(collection, run, tmp_path):
    image = collection / "images" / "cat" / "cat01.png"
    table = write_table(tmp_path / "metadata.csv", [("image", "site", "age"), (image, "", "")])
    _, said = predictions(run, image, "--metadata", table)
    assert said == ""


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        (
            "lens=3",
            2,
            "or COLUMN=VALUE; the model takes site, age",
        ),
        ("age=old", 3, "age 'old' is no number"),
        ("nowhere.csv", 3, "no such table"),
    ],
)
def test_metadata_that_the_model_cannot_take_is_refused(given, code, text, collection, run):
    result = run_finetune("predict", run, collection / "images" / "cat" / "cat01.png", "--metadata", given)
    assert result.exit_code == code
    assert text in result.stderr


def test_a_run_without_metadata_takes_none(small_run, images):
    result = run_finetune("predict", small_run, images / "cat" / "cat00.png", "--metadata", "site=x")
    assert result.exit_code == 2
    assert "was trained without metadata" in result.stderr


@pytest.mark.parametrize(
    ("override", "code", "text"),
    [
        ("data.columns.metadata=[sites]", 2, "has no column 'sites'; it has 'image', 'label', 'site'"),
        ("data.columns.metadata=[label]", 2, "'label' is the column for the label of"),
        ("data.columns.metadata={site: number}", 3, "line 3: site 'south' is no number; leave a cell empty"),
        (
            "model.head.embedding_width={age: 4}",
            2,
            "'age' is no metadata column of categories; those are 'site'",
        ),
    ],
)
def test_a_config_that_asks_for_the_impossible_is_refused(override, code, text, collection):
    result = run_finetune("groups", collection / "config.yaml", override)
    assert result.exit_code == code
    assert text in result.stderr


def test_a_number_that_is_none_outside_of_training_is_named_with_its_line(collection, tmp_path):
    rows = read_table(collection / "labels.csv")
    rows[2][3] = "young"  # an image to validate on: training alone would be numbers
    assert rows[2][4] == "val"
    table = write_table(collection / "wrong.csv", rows)
    result = run_finetune("groups", collection / "config.yaml", f"data.path={table}")
    assert result.exit_code == 3
    assert (
        "line 3: images/cat/cat01.png: age 'young' is no number, as the column has in training"
        in result.stderr
    )


def test_widths_can_be_chosen(collection):
    for width in ("7", "{site: 7}"):
        keys = (f"model.head.embedding_width={width}",)
        result = run_finetune("groups", collection / "config.yaml", *keys, "--json")
        layers = json.loads(result.stdout)["groups"][-1]["layers"]
        assert next(layer["shape"] for layer in layers if layer["type"] == "Embedding") == [4, 7]


def test_columns_that_teach_nothing_are_warned_of(collection):
    rows = read_table(collection / "labels.csv")[1:]
    header = ("image", "label", "split", "same", "id", "case", "age")
    table = write_table(
        collection / "odd.csv",
        [
            header,
            *(
                (r[0], r[1], r[4], "x", f"p{n}", ("A", "a")[n % 2], "NA" if n == 0 else f"{n}")
                for n, r in enumerate(rows)
            ),
        ],
    )
    columns = Columns(metadata=dict.fromkeys(("same", "id", "case", "age"), "auto"))
    said = "\n".join(index_images(table, seed=1, columns=columns).warnings)
    assert "'same' is always 'x' in training" in said
    assert "'id' has 27 categories in 27 rows: hardly any can be learned" in said
    assert "'id': 9 of 9 validation images have categories that training has not seen" in said
    assert "'case' has 'A' and 'a', which differ in case only" in said
    assert "'age' holds categories, because of cells such as 'NA'" in said


def test_folders_have_no_metadata(images):
    index = index_images(images, seed=1, columns=Columns(metadata={"site": "auto"}))
    assert "data.columns.metadata without effect: data.path is no table" in index.warnings


def test_check_tries_a_config_with_metadata(collection):
    result = run_finetune("check", collection / "config.yaml", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)["plan"]
    assert [stage["name"] for stage in plan["stages"]] == ["frozen", "unfrozen"]


def test_the_rate_of_a_frozen_stage_is_found_from_features_with_their_metadata(collection):
    result = run_finetune("lr-find", collection / "config.yaml", "--json", "lr_finder.pick=minimum")
    assert result.exit_code in (0, 4), result.output  # so small a data set may show nothing
    assert json.loads(result.stdout)["stage"] == "frozen"


def test_a_served_model_takes_metadata_as_predict_does(run, collection):
    pytest.importorskip("fastapi", reason="needs the extra serve")
    path = collection / "images" / "cat" / "cat00.png"
    given = ("--metadata", "site=north", "--metadata", "age=25")
    predicted = [
        json.loads(run_finetune("predict", run, path, *options, "--json").stdout)[0] | {"image": "cat"}
        for options in (given, ())
    ]
    upload = {"name": "cat", "data": base64_of(path.read_bytes())}
    own = {**upload, "metadata": {"age": 25}}
    trained = load_trained(run, torch.device("cpu"))
    both, by_form, unknown, wrong = answer(
        trained,
        as_json({"images": [own, upload], "metadata": {"site": "north", "age": None}}),
        form(("cat", path.read_bytes()), metadata='{"site": "north", "age": "25"}', explain="true"),
        as_json({"images": [upload], "metadata": {"sight": "north"}}),
        as_json({"images": [upload], "metadata": {"age": "old"}}),
    )
    assert same(both.json[:1], predicted[:1])
    explained = by_form.json[0]
    assert explained.pop("explanation")["class"] == explained["predictions"][0]["class"]
    assert same([explained], predicted[:1])
    assert (unknown.status, wrong.status) == (400, 400)
    assert "it takes 'site', 'age'" in unknown.error
    assert "age 'old' is no number" in wrong.error
    (nothing,) = answer(trained, form(("cat", path.read_bytes())))
    assert same(nothing.json, predicted[1:])
