"""Tables as people have them, each with what it says, which is the same each time."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import index_images, rewrite, run_finetune, some_quick
from PIL import Image

from finetune.commands.init import write_config
from finetune.commands.settings import read_settings
from finetune.config.load import load_config
from finetune.data.table import Columns
from finetune.errors import DataError
from finetune.experiment.read_data import read_index

CLASSES = ("cat", "dog", "owl")
TRUTH = {f"images/{name}{i:02}.png": name for name in CLASSES for i in range(4)}
ROWS = tuple(TRUTH.items())


def lines(form, header=""):
    """Write a line for each image by a form that knows its file, base name, stem, label and number."""
    text = [
        form.format(
            file=file, base=Path(file).name, stem=Path(file).stem, label=label, n=n, k=CLASSES.index(label)
        )
        for n, (file, label) in enumerate(ROWS)
    ]
    return "".join(f"{line}\n" for line in ([header] if header else []) + text)


def marks(separator, *, blank=""):
    """Write a row of 0 and 1 for each image."""
    sep = separator + blank
    header = sep.join(["filename", *CLASSES])
    body = [sep.join([file, *("01"[name == label] for name in CLASSES)]) for file, label in ROWS]
    return "\n".join([header, *body])


SHAPES = {
    "id-without-extension.csv": lines("{stem},{label}", "id,label"),
    "kaggle-breed.csv": lines("{stem},{label}", "Id,breed"),
    "image-id.csv": lines("{base},{label}", "image_id,label"),
    "label-first.csv": lines("{label},{stem}", "breed,Id"),
    "back-slash.csv": lines("{file},{label}", "image,label").replace("/", "\\"),
    "blanks.csv": lines(" {file} , {label} ", "image,label"),
    "rows-twice.csv": lines("{file},{label}", "image,label") + lines("{file},{label}"),
    "utf-16.csv": lines("{file},{label}", "image,label").encode("utf-16"),
    "utf-32.tsv": lines("{file}\t{label}", "image\tlabel").encode("utf-32"),
    "no-header.csv": lines("{file},{label}"),
    "no-header-label-first.tsv": lines("{label}\t{base}"),
    "list-of-names.txt": lines("{file} {label}"),
    "list-label-first.txt": lines("{label} {file}"),
    "list-without-endings.txt": lines("{stem} {label}"),
    "list-with-header.txt": lines("{file} {label}", "image label"),
    "list-of-cells.txt": lines("{file};{label}", "image;label"),
    "one-hot.csv": marks(","),
    "_classes.csv": marks(",", blank=" "),
    "one-hot.txt": marks(" ").partition("\n")[0] + "\n" + marks(" ").partition("\n")[2],
    "number-and-name.csv": lines("{file},{k},{label}", "file,number,word"),
    "annotation-tool.csv": lines(
        "{n},1,{label},2026-01-01T00:00:00Z,{n},/data/upload/1/0a1b2c{n:02}-{base},2.5",
        "annotation_id,annotator,choice,created_at,id,image,lead_time",
    ),
    "address.csv": lines("https://example.org/a%20b/{base},{label}", "url,label"),
    "other-machine.csv": lines("C:\\Users\\me\\data\\images\\{base},{label}", "path,label"),
    "parent-folder.csv": lines("dataset/images/{base},{label}", "path,label"),
    "metadata.jsonl": lines('{{"file_name": "{file}", "label": "{label}"}}'),
    "lines-in.json": lines('{{"file_name": "{file}", "label": "{label}"}}'),
    "labels.json": json.dumps([{"image": f, "label": label} for f, label in ROWS]),
    "wrapped.json": json.dumps({"data": [{"image": f, "label": label} for f, label in ROWS]}),
    "pairs.json": json.dumps(ROWS),
    "by-file.json": json.dumps(TRUTH),
    "by-file-objects.json": json.dumps({file: {"label": label, "by": 1} for file, label in ROWS}),
    "by-class.json": json.dumps({name: [f for f, label in ROWS if label == name] for name in CLASSES}),
    "columns.json": json.dumps({"image": list(TRUTH), "label": list(TRUTH.values())}),
    "frame.json": json.dumps({"image": dict(enumerate(TRUTH)), "label": dict(enumerate(TRUTH.values()))}),
    "by-number.json": json.dumps({
        f"{n}": {"filename": file, "size": n, "regions": [], "file_attributes": {"kind": label}}
        for n, (file, label) in enumerate(ROWS)
    }),
    "via-project.json": json.dumps({
        "_via_settings": {"ui": {}},
        "_via_img_metadata": {f"{file}{n}": {"filename": file, "size": n, "regions": [{"region_attributes":
            {"kind": label}}] * 2} for n, (file, label) in enumerate(ROWS)},
    }),
    "via.csv": lines(
        '{base},"{{}}",1,0,"{{""name"":""rect"",""x"":{n}}}","{{""kind"":""{label}""}}"',
        "filename,file_attributes,region_count,region_id,region_shape_attributes,region_attributes",
    ),
    "fiftyone.json": json.dumps({
        "classes": CLASSES, "labels": {Path(file).stem: CLASSES.index(label) for file, label in ROWS},
    }),
    "fiftyone-confidence.json": json.dumps({
        "classes": None, "labels": {file: {"label": label, "confidence": 0.5} for file, label in ROWS},
    }),
    "create-ml.json": json.dumps([
        {"image": f, "annotations": [{"label": label, "coordinates": {"x": x}} for x in range(1 + n % 3)]}
        for n, (f, label) in enumerate(ROWS)
    ]),
    "two-annotators.json": json.dumps([
        {"image": f, "annotations": [{"completed_by": n, "choice": label, "lead_time": n} for n in range(2)]}
        for f, label in ROWS
    ]),
    "asked-of-a-server.csv": lines("https://example.org/a/{base}?w=300&sig=a/b.c,{label}", "url,label"),
    "attributes.csv": marks(",").replace(",0", ",-1"),
    "excel.csv": "sep=;\n" + lines("{file};{label}", "image;label"),
    "remarks.csv": "# by me\n# in May\n" + lines("{file},{label}", "#image,label"),
    "yes-and-no.csv": marks(",").replace(",0", ",no").replace(",1", ",Yes"),
    "comments.txt": "#Image BREED\n# 1:cat 2:dog\n" + lines("{stem} {label}"),
    "nested.json": json.dumps([
        {
            "id": n,
            "data": {"image": f"/data/upload/1/0a1b2c{n:02}-{Path(file).name}"},
            "annotations": [{"id": n, "result": [{"type": "choices", "value": {"choices": [label]}}]}],
        }
        for n, (file, label) in enumerate(ROWS)
    ]),
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a folder of drawn images, with a table of each shape beside it."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "images").mkdir()
    for file, label in ROWS:
        Image.new("RGB", (24, 24), ("red", "green", "blue")[CLASSES.index(label)]).save(folder / file)
    for name, content in SHAPES.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def labels_of(index):
    return {name: label for name, _, label in index.rows()}


@pytest.mark.parametrize("name", SHAPES)
def test_what_a_table_says_is_read_whatever_its_shape(pictures, name):
    index = index_images(pictures / name, seed=1)
    assert labels_of(index) == TRUTH
    assert index.class_names == CLASSES
    assert not index.task.multilabel
    assert index.layout.kind == "table"


@pytest.mark.parametrize("name", SHAPES)
def test_the_config_that_init_writes_reads_the_same(pictures, tmp_path, name):
    assert "layout  table: images in" in write_config(pictures / name, tmp_path / "new.yaml")
    index = read_index(load_config(tmp_path / "new.yaml"))
    assert (labels_of(index), index.task.multilabel) == (TRUTH, False)


@pytest.mark.parametrize("name", some_quick(SHAPES, *list(SHAPES)[::3]))
def test_a_model_is_evaluated_on_and_predicts_the_images_of_each(small_run, pictures, name):
    result = run_finetune("evaluate", small_run, pictures / name, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == len(TRUTH)
    result = run_finetune("predict", small_run, pictures / name, "--json")
    assert result.exit_code == 0, result.output
    named = [str(Path(answer["image"]).relative_to(pictures)) for answer in json.loads(result.stdout)]
    assert named == list(TRUTH) * (2 if name == "rows-twice.csv" else 1)


def test_marks_of_several_classes_are_several_and_people_have_to_agree(pictures):
    def written(**more):
        two = [("cat", "dog")[: 1 + n % 2] for n in range(len(ROWS))]
        said = [[{"label": name, **more} for name in names] for names in two]
        rows = [{"image": file, "marks": marks} for (file, _), marks in zip(ROWS, said, strict=True)]
        (pictures / "marks.json").write_text(json.dumps(rows))
        return pictures / "marks.json"

    index = index_images(written(), seed=1)
    assert index.task.multilabel
    assert {index.label_text(sample) for sample in index.samples} == {"cat", "cat|dog"}
    with pytest.raises(DataError, match="entry 2: the label is empty"):
        index_images(written(annotator="me"), seed=1, columns=Columns(label="marks.label"))


def test_a_number_outside_of_its_list_of_classes_is_a_fault(pictures):
    labels = {Path(file).stem: CLASSES.index(label) for file, label in ROWS}
    (pictures / "short.json").write_text(json.dumps({"classes": CLASSES[:2], "labels": labels}))
    with pytest.raises(DataError, match=r"4 faults .*\n  entry 9: the label is empty"):
        index_images(pictures / "short.json", seed=1)


def test_a_column_of_names_of_splits_says_the_splits(pictures, tmp_path):
    splits = ("TRAIN", "Training", "VALIDATION", "test")
    for name, header in (("automl.csv", ""), ("partition.csv", "what,image,label")):
        rows = "".join(
            f"{splits[n % 4]},gs://bucket/{file},{label}\n" for n, (file, label) in enumerate(ROWS)
        )
        (pictures / name).write_text(f"{header}\n{rows}" if header else rows)
        index = index_images(pictures / name, seed=1)
        assert [index.count(split) for split in ("train", "val", "test")] == [6, 3, 3]
        write_config(pictures / name, tmp_path / "new.yaml")
        assert read_index(load_config(tmp_path / "new.yaml")).samples == index.samples
        (tmp_path / "new.yaml").unlink()


def test_what_was_done_is_said(pictures):
    said = {
        "id-without-extension.csv": "'id', labels in 'label'; columns found by what they hold; images in "
        "images/ with .png added",
        "back-slash.csv": "images with / for \\",
        "blanks.csv": "blanks around 12 labels dropped",
        "rows-twice.csv": "12 repeated rows counted once",
        "utf-16.csv": "read as utf-16",
        "no-header.csv": "no column names, for the first row names a file",
        "one-hot.csv": "labels in 3 columns of 0 and 1; columns found by what they hold; one 1 in each row",
        "annotation-tool.csv": "labels in 'choice'; columns found by what they hold; images in images/ by "
        "the ends of their addresses",
    }
    for name, text in said.items():
        assert text in index_images(pictures / name, seed=1).layout.line()


def test_check_tells_the_layout_as_data(pictures, tmp_path):
    write_config(pictures / "rows-twice.csv", tmp_path / "new.yaml")
    result = run_finetune("check", tmp_path / "new.yaml", "--json")
    assert json.loads(result.stdout)["layout"] == {
        "kind": "table",
        "splits": {"train": ["."]},
        "image_column": "image",
        "label_column": "label",
        "encoding": "utf-8",
        "left_out": [{"what": "rows", "why": "say again what others say", "count": 12}],
    }


# Encodings


def test_an_encoding_is_guessed_at_and_read_when_it_is_named(pictures, tmp_path):
    text = lines("{file},{label}", "image,label").replace(",owl", ",Käuzchen")
    (pictures / "western.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(
        DataError, match=r"data\.encoding: cp1252, in which the line is 'images/owl00.png,Käuz"
    ):
        index_images(pictures / "western.csv", seed=1)
    index = index_images(pictures / "western.csv", seed=1, columns=Columns(encoding="cp1252"))
    assert index.class_names == ("Käuzchen", "cat", "dog")
    assert index.layout.encoding == "cp1252"


# Doubt


def ask(folder, text, name="asked.csv"):
    """Return the error of a table that can be read in two ways."""
    (folder / name).write_text(text)
    with pytest.raises(DataError) as caught:
        index_images(folder / name, seed=1)
    return str(caught.value)


@pytest.mark.parametrize(
    ("header", "row", "key"),
    [
        ("image,breed,sex", "{file},{label},{odd}", "data.columns.label: breed or data.columns.label: sex"),
        ("image,breed,when", "{file},{label},2026-01-0{odd} 10:00", ""),
        ("image,breed,size", "{file},{label},{odd}.5", ""),
        ("image,breed,regions,project,cancelled", "{file},{label},0,1,false", ""),
        (
            "image,breed,a,b",
            "{file},{label},{odd},{odd}",
            "data.columns.label: breed or data.columns.label: [a, b]",
        ),
        ("image,ill,seen", "{file},{yes},{yes2}", "data.columns.label: ill or data.columns.label: seen"),
        (
            "a,b,image,label",
            "{half},{half},{file},{label}",
            "data.columns.split: a or data.columns.split: b",
        ),
        ("a,b,label", "{file},{other},{label}", "data.columns.image: a or data.columns.image: b"),
    ],
)
def test_two_columns_that_may_hold_the_same_are_asked_about(pictures, header, row, key):
    files = list(TRUTH)
    rows = [
        row.format(
            file=file,
            label=label,
            odd="fm"[n % 2] if "sex" in header else n % 2,
            other=files[n - 1],
            half=("train", "test")[n % 2],
            yes=("yes", "no")[n % 2],
            yes2=("yes", "no")[n % 3 == 0],
        )
        for n, (file, label) in enumerate(ROWS)
    ]
    if not key:
        (pictures / "asked.csv").write_text("\n".join([header, *rows]))
        assert labels_of(index_images(pictures / "asked.csv", seed=1)) == TRUTH
        return
    said = ask(pictures, "\n".join([header, *rows]))
    assert said.startswith(f"{pictures}/asked.csv: columns ")
    assert said.endswith(f"; set {key}.")


def test_init_and_train_take_the_key_that_settles_a_doubt(pictures, tmp_path):
    rows = [f"{file},{label},{'fm'[n % 2]}" for n, (file, label) in enumerate(ROWS)]
    table = pictures / "doubt.csv"
    table.write_text("\n".join(["file,breed,sex", *rows]))
    result = run_finetune("init", table, "-o", tmp_path / "new.yaml")
    assert result.exit_code == 3
    assert "set data.columns.label: breed or data.columns.label: sex" in result.output
    result = run_finetune("init", table, "data.columns.label=breed", "-o", tmp_path / "new.yaml")
    assert result.exit_code == 0, result.output
    config = load_config(tmp_path / "new.yaml")
    assert (config.data.columns.label, labels_of(read_index(config))) == ("breed", TRUTH)
    assert labels_of(read_index(read_settings(table, ["data.columns.label=breed", "seed=3"])[0])) == TRUTH


def test_init_takes_only_what_says_how_data_are_read(pictures):
    result = run_finetune("init", pictures / "labels.json", "seed=3")
    assert result.exit_code == 2
    assert (
        "argument 'seed=3': init takes data.columns, data.label_separator, data.uncertain, " in result.output
    )


def test_init_writes_the_encoding_that_it_was_given(pictures, tmp_path):
    (pictures / "old.csv").write_bytes(lines("{file},ä{label}", "image,label").encode("cp1252"))
    write_config(pictures / "old.csv", tmp_path / "new.yaml", ["data.encoding=cp1252"])
    assert read_index(load_config(tmp_path / "new.yaml")).class_names == ("äcat", "ädog", "äowl")


# Tables in the folders of splits


def split_folders(root, tables, *, name="_classes.csv"):
    """Write images into folders of splits, with a table in each."""
    for number, (folder, text) in enumerate(tables.items()):
        (root / folder).mkdir(parents=True)
        for n in range(4):
            Image.new("RGB", (9, 9), (n * 9, number * 9, 0)).save(root / folder / f"{n}.png")
        (root / folder / name).write_text(text)
    return root


ONE_HOT = "filename, ants, bees\n" + "".join(f"{n}.png, {n % 2}, {1 - n % 2}\n" for n in range(4))
BY_SPLIT = {f"{folder}/{n}.png": (split, ("bees", "ants")[n % 2]) for folder, split in
            (("train", "train"), ("valid", "val"), ("test", "test")) for n in range(4)}  # fmt: skip


def test_tables_in_the_folders_of_splits_are_one(tmp_path):
    root = split_folders(tmp_path / "set", {"train": ONE_HOT, "valid": ONE_HOT, "test": ONE_HOT})
    (root / "README.dataset.txt").write_text("words about the data\n")
    index = index_images(root, seed=1)
    assert {name: (split, label) for name, split, label in index.rows()} == BY_SPLIT
    assert index.layout.splits == {"train": ("train",), "val": ("valid",), "test": ("test",)}
    assert index.samples[0].place == "test/_classes.csv, line 2"
    write_config(root, tmp_path / "new.yaml")
    assert set(read_index(load_config(tmp_path / "new.yaml")).rows()) == set(index.rows())


def test_tables_of_splits_may_be_of_any_shape_and_order_of_columns(tmp_path):
    text = "file_name,label\n" + "".join(f"{n},{('bees', 'ants')[n % 2]}\n" for n in range(4))
    other = "label,file_name\n" + "".join(f"{('bees', 'ants')[n % 2]},{n}.png\n" for n in range(4))
    root = split_folders(tmp_path, {"train": text, "valid": other, "test": text}, name="metadata.csv")
    index = index_images(root, seed=1)
    assert {name: (split, label) for name, split, label in index.rows()} == BY_SPLIT


def test_tables_of_splits_that_do_not_fit_are_refused(tmp_path):
    root = split_folders(tmp_path, {"train": ONE_HOT, "valid": ONE_HOT.replace("bees", "wasps")})
    with pytest.raises(
        DataError, match=r"has other columns than .*: ' ?bees', ' ?wasps' in one of them alone"
    ):
        index_images(root, seed=1)
    (root / "train" / "more.csv").write_text(ONE_HOT)
    (root / "train" / "_classes.csv").rename(root / "train" / "most.csv")
    with pytest.raises(DataError, match=r"train holds several tables: 'more.csv', 'most.csv'; set data.path"):
        index_images(root, seed=1)


# Columns of 0 and 1


def test_columns_of_0_and_1_are_several_classes_where_a_row_has_two_or_none(pictures):
    rows = [f"{file},{int(label == 'cat')},{int(n < 6)},0" for n, (file, label) in enumerate(ROWS)]
    (pictures / "several.csv").write_text("\n".join(["image,cat,low,never", *rows]))
    index = index_images(pictures / "several.csv", seed=1)
    assert (index.class_names, index.task.multilabel) == (("cat", "low"), True)
    assert "several classes an image, or none; no row has 'never'" in index.layout.line()


def test_a_model_of_columns_of_0_and_1_is_evaluated_on_a_column_of_names(tmp_path, pictures):
    write_config(pictures / "one-hot.csv", tmp_path / "new.yaml")
    keys = ["model.arch=shufflenet_v2_x0_5", "model.weights=builtin:glyphs", "data.image_size=32",
            "data.workers=0", "stages=[{name: head, train: head, epochs: 1, lr: 0.01}]"]  # fmt: skip
    result = run_finetune("train", tmp_path / "new.yaml", *keys, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    for name in ("one-hot.csv", "kaggle-breed.csv", "list-of-names.txt", "annotation-tool.csv"):
        for command in ("evaluate", "predict"):
            result = run_finetune(command, tmp_path / "run", pictures / name, "--json")
            assert result.exit_code == 0, result.output
    assert run_finetune("evaluate", tmp_path / "run", "--json").exit_code == 0


def test_columns_that_are_called_otherwise_are_evaluated_with_a_warning(small_run, pictures, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    rewrite(tmp_path / "run", "model.json", lambda model: model["columns"].update(image="Id", label="breed"))
    result = run_finetune("evaluate", tmp_path / "run", pictures / "labels.json")
    assert result.exit_code == 0, result.output
    said = (
        "labels.json has no columns 'Id', 'breed', as the data of the model; table: images in column 'image'"
    )
    assert said in " ".join(result.output.split())
    assert "layout  table: images in column 'image', labels in 'label'" in result.output
    result = run_finetune("evaluate", tmp_path / "run", pictures / "kaggle-breed.csv")
    assert "has no column" not in result.output


# Numbers of classes


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("cat\ndog\nowl\n", 0),
        ("0 cat\n1 dog\n2 owl\n", 0),
        ("cat\ndog\nowl\n", 1),
        ("7 cat\n8 dog\n9 owl\n", 7),
    ],
)
@pytest.mark.parametrize("file", ["classes.txt", "synsets.txt"])
def test_numbers_in_a_list_take_their_names_from_the_file_beside_it(pictures, tmp_path, names, first, file):
    rows = [f"{pictures}/{path} {CLASSES.index(label) + first}" for path, label in ROWS]
    (tmp_path / "list.txt").write_text("\n".join(rows))
    assert set(labels_of(index_images(tmp_path / "list.txt", seed=1)).values()) == {
        str(first + n) for n in range(3)
    }
    (tmp_path / file).write_text(names)
    index = index_images(tmp_path / "list.txt", seed=1)
    assert index.class_names == CLASSES
    assert f"classes by number named in {file}" in index.layout.line()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat\ndog\nowl\nfox\n", "4 names, and the list the numbers 1 to 3: they may count from 0 or from 1"),
        ("cat\ndog\n", "2 names, and none for 1 number of the list, such as 3; add a line `3 NAME`"),
    ],
)
def test_names_that_do_not_fit_the_numbers_are_asked_about(pictures, tmp_path, names, message):
    rows = [f"{pictures}/{path} {CLASSES.index(label) + 1}" for path, label in ROWS]
    (tmp_path / "list.txt").write_text("\n".join(rows))
    (tmp_path / "classes.txt").write_text(names)
    with pytest.raises(DataError, match=message):
        index_images(tmp_path / "list.txt", seed=1)


# Files that several cells may mean


def copies(pictures, tmp_path, *folders):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        for file in TRUTH:
            (tmp_path / folder / Path(file).name).write_bytes((pictures / file).read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["kaggle-breed.csv", "image-id.csv", "annotation-tool.csv"])
def test_two_folders_with_the_same_names_are_asked_about(pictures, tmp_path, name):
    root = copies(pictures, tmp_path, "new", "old")
    (root / name).write_text(SHAPES[name])
    with pytest.raises(
        DataError, match=rf"set data.image_folder: {root}/new or data.image_folder: {root}/old"
    ):
        index_images(root / name, seed=1)
    index = index_images(root / name, image_folder=str(root / "old"), seed=1)
    assert list(labels_of(index).values()) == list(TRUTH.values())


def test_two_files_that_one_cell_may_mean_are_named_with_its_line(pictures, tmp_path):
    root = copies(pictures, tmp_path, "images")
    (root / "images" / "cat00.jpg").write_bytes(b"")
    (root / "t.csv").write_text(SHAPES["kaggle-breed.csv"])
    said = r"line 2: 'cat00' may be images/cat00.jpg or images/cat00.png; write which"
    with pytest.raises(DataError, match=said):
        index_images(root / "t.csv", seed=1)
    (root / "up").mkdir()
    (root / "up" / "cat01.png").write_bytes(b"")
    (root / "t.csv").write_text(SHAPES["annotation-tool.csv"])
    said = rf"'/data.*cat01.png', are in 2 folders; set data.image_folder: {root}/images or .*: {root}/up\."
    with pytest.raises(DataError, match=said):
        index_images(root / "t.csv", seed=1)
    (root / "images" / "cat02.png").rename(root / "up" / "cat02.png")
    with pytest.raises(DataError, match=r"line 3: .* may be images/cat01.png or up/cat01.png; write which"):
        index_images(root / "t.csv", seed=1)


def test_an_image_that_is_missing_is_not_looked_for_elsewhere(pictures, tmp_path):
    root = copies(pictures, tmp_path, "images", "old/images")
    (root / "images" / "cat00.png").unlink()
    (root / "t.csv").write_text(SHAPES["rows-twice.csv"])
    assert set(labels_of(index_images(root / "t.csv", seed=1))) == set(TRUTH)


def test_an_upload_is_found_by_its_name_without_blanks_and_marks(pictures, tmp_path):
    (tmp_path / "images").mkdir()
    names = {file: f"images/{Path(file).stem} (1), é.png" for file in TRUTH}
    for file, name in names.items():
        (tmp_path / name).write_bytes((pictures / file).read_bytes())
    stored = [f"/data/upload/7/0123abcd-{Path(file).stem}_1_é.png,{label}" for file, label in ROWS]
    (tmp_path / "t.csv").write_text("\n".join(["image,choice", *stored]))
    assert labels_of(index_images(tmp_path / "t.csv", seed=1)) == {names[file]: TRUTH[file] for file in TRUTH}


def test_a_table_that_splits_may_name_images_as_tables_do(pictures, tmp_path):
    rows = [f"{Path(file).stem},{'val' if file.endswith('0.png') else 'train'}" for file in TRUTH]
    (tmp_path / "split.csv").write_text("\n".join(["Id,split", *rows]))
    index = index_images(pictures / "labels.json", val=str(tmp_path / "split.csv"), seed=1)
    assert {s.name for s in index.of_split("val")} == {f"images/{name}00.png" for name in CLASSES}


# More than one row of an image, and columns that are not what they are called


def test_several_rows_of_an_image_that_agree_are_one_image_whatever_else_they_hold(pictures):
    rows = [f"{file},{label},p{n}" for n in range(4) for file, label in ROWS]
    (pictures / "raters.csv").write_text("\n".join(["photo,verdict,rater", *rows]))
    index = index_images(pictures / "raters.csv", seed=1)
    assert labels_of(index) == TRUTH
    assert "36 repeated rows counted once" in index.layout.line()


def test_a_column_called_image_that_names_none_is_asked_about_if_another_does(pictures):
    rows = [f"https://example.org/{n},{stem},{label}" for n, (stem, label) in enumerate(ROWS)]
    said = ask(pictures, "\n".join(["image,local,label", *rows]))
    assert said.endswith("; set data.columns.image: image or data.columns.image: local.")


# Tables in archives


@pytest.mark.parametrize("top", ["", "dogs/"])
@pytest.mark.parametrize("name", ["kaggle-breed.csv", "labels.json", "_classes.csv"])
def test_a_table_beside_the_images_in_an_archive_is_read(pictures, tmp_path, name, top):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in TRUTH:
            archive.write(pictures / file, f"{top}{file}")
        archive.write(pictures / name, f"{top}{name}")
    index = index_images(tmp_path / "photos.zip", seed=1)
    assert labels_of(index) == TRUTH
    assert index.layout.line().startswith(f"table: {name}; images in column")
    write_config(tmp_path / "photos.zip", tmp_path / "new.yaml")
    assert labels_of(read_index(load_config(tmp_path / "new.yaml"))) == TRUTH
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.yaml", "photos.zip"]


# Lists of images alone, which a model can predict


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "images/dog01.png\nimages/owl02.png\n"),
        ("list.csv", "images/dog01.png\nimages/owl02.png\n"),
        ("list.csv", "id\ndog01\nowl02\n"),
        ("list.json", '["images/dog01.png", "images/owl02.png"]'),
        ("list.jsonl", '{"image": "images/dog01.png"}\n{"image": "images/owl02.png"}\n'),
    ],
)
def test_a_list_of_images_without_labels_is_predicted(small_run, pictures, name, text):
    (pictures / name).write_text(text)
    result = run_finetune("predict", small_run, pictures / name, "--json")
    (pictures / name).unlink()
    assert result.exit_code == 0, result.output
    assert [Path(answer["image"]).stem for answer in json.loads(result.stdout)] == ["dog01", "owl02"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply; expected a list of objects"),
        (
            '{"a.png": "cat", "a.png": "dog"}',
            "the key 'a.png' stands twice in an object, with different values",
        ),
        ("[1, 2]", "'1' is no object"),
        ('{"images": [], "annotations": []}', "it looks like COCO, without a list of categories"),
        ("{}", "it holds no rows"),
        ('[{"image": "a.png"},\n {"image" 3}]', "t.json:2: not JSON"),
        ('{"a": {"b": 1}, "c": [1]}', "its keys are no files: 'a', 'c'"),
        (
            json.dumps([{f"{n} {k}": 1 for k in range(300)} for n in range(40)]),
            "more than 10,000 different keys",
        ),
    ],
)
def test_json_that_is_no_table_is_refused(tmp_path, text, message):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=message):
        index_images(tmp_path / "t.json", seed=1)


def test_numbers_in_json_are_classes_as_they_are_written(pictures):
    rows = [
        f'{{"image": "{file}", "label": {("1.0", "1e3", "NaN")[CLASSES.index(label)]}}}'
        for file, label in ROWS
    ]
    (pictures / "numbers.jsonl").write_text("\n".join(rows))
    assert index_images(pictures / "numbers.jsonl", seed=1).class_names == ("1.0", "1e3", "NaN")
