"""Data sets as their publishers and annotation tools lay them out, each with what it says."""

import json

import pytest
from conftest import index_images, run_finetune
from test_data import draw

from finetune.commands.survey import survey_data
from finetune.config.load import load_config
from finetune.data.indexing.build import list_images
from finetune.data.table import Columns
from finetune.data.table.ground_truth import answers_of
from finetune.errors import DataError
from finetune.experiment.read_data import read_index

NAMES = ("cat", "dog")
FILES = [f"images/img{n:02}.png" for n in range(12)]
FINDINGS = ("1.0", "", "0.0", "-1.0", "", "1.0")


def table(header, form, number=12):
    """Write a line for each image by a form of its number, name, class and findings."""
    return "\n".join(
        [
            *([header] if header else []),
            *(
                form.format(
                    n=n,
                    file=FILES[n],
                    base=FILES[n][7:],
                    stem=FILES[n][7:-4],
                    label=NAMES[n % 2],
                    k=n % 2,
                    sign="MF"[n // 3 % 2],
                    a=FINDINGS[n % 6],
                    b=FINDINGS[(n + 1) % 6],
                    c=FINDINGS[(n + 2) % 5],
                )
                for n in range(number)
            ),
            "",
        ]
    )


def manifest(answer, metadata):
    rows = [
        {
            "source-ref": f"s3://bucket/{FILES[n]}",
            "job": answer(n),
            "job-metadata": {**metadata(n), "confidence": n},
        }
        for n in range(12)
    ]
    return "".join(f"{json.dumps(row)}\n" for row in rows)


NAMED = {"0": "cat", "1": "dog"}
SHAPES = {
    "kaggle": {
        "train.csv": table("id_code,diagnosis", "{stem},{label}"),
        "test.csv": "id_code\nimg00\n",
        "sample_submission.csv": table("id_code,diagnosis", "{stem},0"),
        "names.json": json.dumps(NAMED),
    },
    "submission": {
        "a.csv": table("id,breed", "{stem},{label}"),
        "sampleSubmission.csv": table("id,label", "{stem},0"),
    },
    "manifest": {"a.manifest": manifest(lambda n: n % 2, lambda n: {"class-name": NAMES[n % 2]})},
    "manifest of one class in a list": {
        "a.manifest": manifest(lambda n: [n % 2], lambda n: {"class-map": NAMED})
    },
    "manifest of boxes": {
        "a.manifest": manifest(
            lambda n: {"annotations": [{"class_id": n % 2}] * 2}, lambda n: {"class-map": NAMED}
        )
    },
    "predictions": {"a.csv": table("Id,PredictionString", "{stem},{label} {n} 2 3.5 4 {label} 5 6 7 8 ")},
    "attributes": {
        "list_attr.txt": "12\ncat dog \n"
        + "".join(f"{FILES[n][7:]} {' 1 -1' if n % 2 == 0 else '-1  1'}\n" for n in range(12))
    },
    "partition": {"a.csv": table("image_id,breed,partition", "{base},{label},{n}")},
}


@pytest.fixture
def root(tmp_path):
    draw(tmp_path / "set", *FILES)
    return tmp_path / "set"


@pytest.mark.parametrize("name", SHAPES)
def test_a_data_set_is_read_as_it_is_published(root, tmp_path, name):
    for file, text in SHAPES[name].items():
        (root / file).write_text(text)
    path = root / "list_attr.txt" if name == "attributes" else root
    made = run_finetune("init", path, "--output", tmp_path / "a.yaml")
    assert made.exit_code == 0, made.output
    index = read_index(load_config(tmp_path / "a.yaml"))
    assert [index.label_text(sample) for sample in index.samples] == [NAMES[n % 2] for n in range(12)]
    assert not index.task.multilabel
    others = {one.what for one in index.layout.left_out if one.why == "says no class of images"}
    assert others == {f"table {file}" for file in list(SHAPES[name])[1:]}


def test_a_manifest_of_several_classes_has_several_and_other_lines_stay(root):
    text = manifest(lambda n: [0, 1][: 1 + n % 2], lambda n: {"class-map": NAMED})
    (root / "a.manifest").write_text(text)
    index = index_images(root, seed=1)
    assert {index.label_text(sample) for sample in index.samples} == {"cat", "cat|dog"}
    for row in (
        {"image": "a", "x": 1, "x-metadata": {"class-name": "b"}},
        {"source-ref": "a", "x": 1},
        [1],
        "a",
    ):
        assert answers_of(row) == row


DOUBTFUL = {
    "findings": (
        table("Path,Sex,Edema,Lung Lesion,Fracture", "{file},{sign},{a},{b},{c}"),
        r"label: \[Edema, Lung Lesion, Fracture\]\n  with data\.uncertain: absent .*\n.*label: Sex$",
    ),
    "findings alone": (
        table("Path,Edema,Fracture", "{file},{a},{b}"),
        r"beside 0 and 1\. What is the label\?\n",
    ),
    "several names in a cell": (
        table("image,finding,sex", "{file},{label}", 0)
        + "\n".join(
            f"{file},{finding},{sex}"
            for file, finding, sex in zip(
                FILES,
                ("a", "b", "a|b", "a", "b", "a", "b", "a", "b", "a", "b", "a"),
                "MMFFMMFFMMFF",
                strict=True,
            )
        ),
        r"'finding' \(3 texts: a, a\|b, b\) and 'sex'",
    ),
    "partition": (table("image_id,partition", "{base},{k}"), r"has no column for the label"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_may_be_the_label_is_asked(root, name):
    text, message = DOUBTFUL[name]
    (root / "a.csv").write_text(text)
    for read in (survey_data, list_images):
        with pytest.raises(DataError, match=message):
            read(root / "a.csv")


@pytest.mark.parametrize(("answer", "minus"), [("absent", 0), ("present", 1)])
def test_the_answer_to_uncertain_findings_holds_for_every_command(root, tmp_path, answer, minus):
    (root / "a.csv").write_text(DOUBTFUL["findings"][0])
    settled = ("data.columns.label=[Edema, Lung Lesion, Fracture]", f"data.uncertain={answer}")
    made = run_finetune("init", root / "a.csv", *settled, "--output", tmp_path / "a.yaml")
    assert made.exit_code == 0, made.output
    assert f"of -1 read as {minus}" in made.stdout
    index = read_index(load_config(tmp_path / "a.yaml"))
    edema = [float(a == "1.0" or (a == "-1.0" and minus)) for a in FINDINGS]
    assert [index.target(sample)[0] for sample in index.samples[:6]] == edema
    assert f"uncertain: {answer}" in (tmp_path / "a.yaml").read_text()


def test_blanks_beside_ones_alone_are_zero_and_columns_may_be_called_person(root):
    rows = [f"{file},{'1' * (n % 2)},{'1' * (n % 3 == 0)}\n" for n, file in enumerate(FILES)]
    (root / "a.csv").write_text("image,person,plant\n" + "".join(rows))
    index = index_images(root / "a.csv", seed=1)
    assert index.class_names == ("person", "plant")
    assert "14 blanks read as 0" in index.layout.line()


def test_rows_that_name_several_classes_of_an_image_are_joined_where_it_may_have_them(root):
    text = table("image,label", "{file},{label}")
    (root / "a.csv").write_text(f"{text}{FILES[0]},dog\n{FILES[0]},cat\n")
    with pytest.raises(DataError, match=r"'dog', but 'cat' in line 2\n.* set data\.label_separator: "):
        list_images(root / "a.csv")
    index = list_images(root / "a.csv", columns=Columns(label_separator="|"))
    assert index.label_text(index.samples[0]) == "cat|dog"


def test_a_list_that_finds_its_images_among_masks_alone_is_asked_about(root):
    label = Columns(label="column 2")
    draw(root, *(file.replace("images/", "annotations/trimaps/") for file in FILES))
    (root / "annotations" / "list.txt").write_text(table("", "{stem} {k} 1"))
    message = (
        r"'trimaps' alone.*Where are the images\?\ndata\.image_folder: .*/set/images\ndata\.image_folder: "
    )
    with pytest.raises(DataError, match=message):
        list_images(root / "annotations" / "list.txt", columns=label)
    settled = list_images(root / "annotations" / "list.txt", columns=label, image_folder=root / "images")
    assert (settled.class_names, len(settled.samples)) == (("0", "1"), 12)
