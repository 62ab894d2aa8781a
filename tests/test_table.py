"""What a table of images may look like, and what is said of one that cannot be used."""

import json
import os
import sys

import pytest
from conftest import draw_images, index_images, run_finetune, write_small_config
from PIL import Image

from finetune.commands.init import config_name, write_config
from finetune.config.load import load_config
from finetune.data.images import ImageLimits
from finetune.data.indexing.match_classes import match_classes
from finetune.data.quality.scan import BadImagesError, check_images
from finetune.data.table import USUAL_COLUMNS, Columns, is_table, read_table
from finetune.errors import ConfigError, DataError, MachineError

LIMITS = ImageLimits()


def draw(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12)).save(folder / name)


def write(folder, text, name="labels.csv", *, draw_images=True):
    """Write a table, and draw the images that its first column names."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if draw_images:
        for row in read_table(path).rows:
            if row[0].strip() and "/" not in row[0][:1]:
                draw(folder, row[0])
    return path


def labelled(names):
    """Write rows of two classes in turn."""
    return "image,label\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names))


TEN = [f"x/{i}.png" for i in range(10)]


def rows_of(index):
    return {name: (split, class_name) for name, split, class_name in index.rows()}


# What can be read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "image,label\n1.png,cat\n2.png,dog\n"),
        ("t.csv", "\ufeffimage,label\n1.png,cat\n2.png,dog\n"),
        ("t.csv", "image;label\r\n1.png;cat\r\n2.png;dog\r\n"),
        ("t.csv", "image|label\n1.png|cat\n2.png|dog"),
        ("t.tsv", "image\tlabel\n1.png\tcat\n2.png\tdog\n"),
        ("T.CSV", '"image", "label"\n"1.png", "cat"\n2.png, dog\n'),
        ("t.csv", "image,label\r1.png,cat\r2.png,dog\r"),
        ("t.csv", "\nimage,label\n\n1.png,cat\n,\n2.png,dog\n\n"),
    ],
)
def test_separators_byte_order_marks_line_ends_and_blank_lines_do_not_matter(tmp_path, name, text):
    table = read_table(write(tmp_path, text, name))
    assert table.header == ("image", "label")
    assert table.rows == (("1.png", "cat"), ("2.png", "dog"))


def test_cells_stay_text_whatever_they_look_like(tmp_path):
    labels = ["007", "7", "1e3", "1.0", "NA", "nan", "null", "true", "2024-01-01", "None", "-", "no"]
    text = "image,label\n" + "".join(
        f"{i}-{j}.png,{label}\n" for i in range(2) for j, label in enumerate(labels)
    )
    assert set(index_images(write(tmp_path, text), seed=1).class_names) == set(labels)


def test_cells_may_hold_separators_quotes_and_line_ends(tmp_path):
    text = 'image,label\n1.png,"big, ""red""\ncat"\n2.png,dog\n'
    table = read_table(write(tmp_path, text))
    assert table.rows[0][1] == 'big, "red"\ncat'
    assert [table.place(row) for row in range(2)] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected column names"),
        (b"\n \n", "is empty; expected column names"),
        (b"image,label\n", "has no rows below its column names"),
        ("image,label\n1.png,cat\n".encode("utf-16-le"), "may be UTF-16 .* data.encoding: utf-16-le"),
        ("image,label\n1.png,cat\n".encode("utf-16-be"), "may be UTF-16 .* data.encoding: utf-16-be"),
        ("image,label\n1.png,cat\n".encode("utf-16")[:-1], r"labels.csv:.*: not UTF-16 \(truncated"),
        (b"PK\x03\x04\x00\x00", "is no text in UTF-8; save the table as CSV"),
        (
            b"image,label\n1.png,cat\n2.png,caf\xe9\n",
            r"labels.csv:3: not UTF-8 \(byte 0xe9\); name the encoding, for instance data.encoding: cp1252, "
            "in which the line is '2.png,caf\xe9'",
        ),
        (b",\n", "is empty: it holds nothing but separators"),
        (b"|", "is empty: it holds nothing but separators"),
        (b"image,label," + b"x" * 131_073 + b"\n1.png,cat,\n", "csv:1: a cell has more than 131,072"),
        (b"," * 1_000_000 + b"\n", "has 1,000,001 columns, more than 10,000; expected a row for each image"),
        (b'image,label\n1.png,cat\n2.png,"dog\n3.png,cat\n', "csv:3: a quote opens here and is not closed"),
        (b'image,label\n1.png,"a"b\n', "labels.csv:2: ',' expected after '\"'; double a quote inside a cell"),
        (b"image,label,image\n1.png,cat,2.png\n", "has several columns called 'image'; rename them"),
        (b"image,label\n1.png,cat\n2.png,a,b\n3.png\n", "2 faults in the rows .*\n  line 3: 3 cells for 2"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_refused_with_its_line(tmp_path, content, message):
    path = write(tmp_path, content, draw_images=False)
    with pytest.raises(DataError, match=message) as caught:
        index_images(path, seed=1)
    assert caught.value.exit_code == 3


def test_a_missing_table_and_one_that_is_no_file_are_told_apart(tmp_path):
    with pytest.raises(DataError, match=r"no such table: .*nowhere\.csv"):
        index_images(tmp_path / "nowhere.csv", seed=1)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe\.csv is not a regular file"):
        index_images(tmp_path / "pipe.csv", seed=1)


def test_a_folder_may_be_called_like_a_table(tmp_path):
    draw(tmp_path / "x.csv", *(f"{c}/{i}.png" for c in "ab" for i in range(2)))
    assert not is_table(tmp_path / "x.csv")
    assert index_images(tmp_path / "x.csv", seed=1).class_names == ("a", "b")


def test_parquet_keeps_whole_numbers_whole_and_counts_rows(tmp_path):
    pytest.importorskip("pyarrow")
    import pandas

    frame = pandas.DataFrame(
        {"file_name": TEN, "class": pandas.array([3, 4] * 5, "Int64"), "pixels": [b"\x89PNG"] * 10}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    draw(tmp_path, *TEN)
    index = index_images(tmp_path / "t.parquet", seed=1)
    assert index.class_names == ("3", "4")
    assert index.samples[0].place == "row 1"
    frame.loc[2, "class"] = None
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 3: the label is empty"):
        index_images(tmp_path / "t.parquet", seed=1)


def test_what_is_no_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(b"image,label\n")
    with pytest.raises(DataError, match="is not a Parquet file that can be read"):
        index_images(tmp_path / "t.parquet", seed=1)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(MachineError, match=r"takes pyarrow, which is not installed\.\nInstall it") as caught:
        read_table(tmp_path / "t.parquet")
    assert caught.value.exit_code == 7


# Columns


@pytest.mark.parametrize(
    "header", ["Image,Label", "file_name,class", "Image Path,target", "filepath,category"]
)
def test_columns_are_found_by_their_usual_names(tmp_path, header):
    index = index_images(write(tmp_path, labelled(TEN).replace("image,label", header)), seed=1)
    assert index.class_names == ("a", "b")


def test_columns_can_be_named(tmp_path):
    text = "label,species,picture\n" + "".join(f"{i},{'ab'[i % 2]},{name}\n" for i, name in enumerate(TEN))
    path = write(tmp_path, text, draw_images=False)
    draw(tmp_path, *TEN)
    columns = Columns(image="picture", label="species")
    index = index_images(path, columns=columns, seed=1)
    assert index.class_names == ("a", "b")
    assert index.columns == columns
    (line,) = index.warnings
    assert line.startswith(f"columns of {path} that are not used: 'label'; data.columns.metadata")


def test_a_column_that_was_named_and_is_not_there_is_a_mistake_in_the_config(tmp_path):
    path = write(tmp_path, labelled(TEN))
    with pytest.raises(
        ConfigError, match=r"data.columns.label: .* no column 'lable'; .*; did you mean 'label'\?"
    ):
        index_images(path, columns=Columns(label="lable"), seed=1)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "a,label",
            r"no column for the image: its column names are 'a', 'label'; expected one of image, img",
        ),
        (
            "a,b,label",
            r"columns 'a' \(1 text: .*\) and 'b' .* may both hold the image; set data.columns.image: a",
        ),
        ("image,b", r"no column for the label: .*\nRename one, or name it in data.columns.label"),
        (
            "a,b,label",
            r"columns 'a' \(1 text: 0.png\) and 'b' \(1 text: 1.png\) may both hold the image; set "
            "data.columns.image: a or data.columns.image: b",
        ),
        (
            "path,file,label",
            "columns 'path' and 'file' may both hold the image; name one: data.columns.image",
        ),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(tmp_path, header, message):
    row = "cat,dog" if header == "a,label" else ",".join(f"{n}.png" for n in range(header.count(",") + 1))
    with pytest.raises(DataError, match=message):
        index_images(write(tmp_path, f"{header}\n{row}\n", draw_images=False), seed=1)


def test_the_plain_name_goes_before_other_usual_ones(tmp_path):
    text = "image,label,class\n" + "".join(f"{name},{'ab'[i % 2]},y\n" for i, name in enumerate(TEN))
    assert index_images(write(tmp_path, text), seed=1).class_names == ("a", "b")


@pytest.mark.parametrize("key", [{"columns": Columns(label="x")}, {"image_folder": "x"}])
def test_what_is_said_about_a_table_has_no_effect_on_a_folder_and_that_is_said(tmp_path, key):
    draw(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(2)))
    (line,) = index_images(tmp_path, seed=1, **key).warnings
    assert "without effect: data.path is no table" in line


# Rows


def test_a_table_is_split_like_folders_by_the_names_of_its_images(tmp_path):
    draw(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(10)))
    names = [f"{c}/{i}.png" for c in "ba" for i in range(10)]
    path = write(tmp_path, "image,label\n" + "".join(f"{name},{name[0]}\n" for name in names))
    table, folder = index_images(path, seed=1), index_images(tmp_path, seed=1)
    assert [sample[:3] for sample in table.samples] == [sample[:3] for sample in folder.samples]
    assert table.root == tmp_path


def test_the_split_column_says_what_trains_validates_and_tests(tmp_path):
    splits = ["train", "Training", "VAL", "valid", "test"] * 2
    text = "image,label,split\n" + "".join(
        f"{name},{'ab'[i // 5]},{splits[i]}\n" for i, name in enumerate(TEN)
    )
    index = index_images(write(tmp_path, text), seed=1)
    assert [index.count(split) for split in ("train", "val", "test")] == [4, 4, 2]
    assert rows_of(index)["x/2.png"] == ("val", "a")


def test_a_fraction_beside_val_rows_is_refused(tmp_path):
    text = "image,label,split\n1.png,a,train\n2.png,b,train\n3.png,a,val\n"
    with pytest.raises(DataError, match=r"data.val is 0.2, but the split column of .* has val rows; drop"):
        index_images(write(tmp_path, text), val=0.2, seed=1)


def test_test_rows_stay_when_a_part_of_the_others_is_held_out(tmp_path):
    text = (
        labelled(TEN).replace("label", "label,split").replace("a\n", "a,train\n").replace("b\n", "b,train\n")
    )
    index = index_images(write(tmp_path, text + "t.png,a,test\n"), val=0.4, seed=1)
    assert [index.count(split) for split in ("train", "val", "test")] == [6, 4, 1]


def test_a_folder_to_validate_on_is_no_thing_of_a_table(tmp_path):
    with pytest.raises(ConfigError, match=r"data.val: 'holdout' is no fraction, and .* no folder"):
        index_images(write(tmp_path, labelled(TEN)), val="holdout", seed=1)


def test_every_fault_of_every_row_is_told_at_once_with_its_line(tmp_path):
    text = (
        "image,label,split\n1.png,cat,train\n1.png,cat,train\n./1.png,dog,train\n2.png,,train\n ,dog,train\n"
        ",,\nx/../1.png,cat,val\n3.png,dog,later\nhttps://x.org/1.png,dog,train\n2.png,dog,train\n"
    )
    with pytest.raises(DataError) as caught:
        index_images(write(tmp_path, text, draw_images=False), seed=1)
    assert str(caught.value).splitlines() == [
        f"6 faults in the rows of {tmp_path}/labels.csv:",
        "  line 4: 1.png: label 'dog', but 'cat' in line 2",
        "  line 5: the label is empty",
        "  line 6: the image is empty",
        "  line 8: 1.png: split 'val', but 'train' in line 2",
        "  line 9: split 'later' is none of train, val (valid, validation) and test",
        "  line 10: 'https://x.org/1.png' is a web address; download the images first",
        "Fix or remove these rows.",
    ]


def test_the_list_of_faults_ends_after_twenty(tmp_path):
    text = "image,label\n1.png,a\n" + "1.png,b\n" * 30
    with pytest.raises(DataError, match=r"30 faults .*(.|\n)*  … and 10 more\n"):
        index_images(write(tmp_path, text), seed=1)


def test_names_in_faults_are_harmless_on_a_terminal(tmp_path):
    with pytest.raises(DataError) as caught:
        index_images(write(tmp_path, "image,label\n\x1b[2J,a\n\x1b[2J,b\n", draw_images=False), seed=1)
    assert "\x1b" not in str(caught.value)


def test_missing_and_broken_images_are_listed_with_the_line_that_names_them(tmp_path):
    path = write(tmp_path, labelled(TEN))
    (tmp_path / TEN[3]).unlink()
    (tmp_path / TEN[4]).write_bytes(b"<html></html>\n")
    with pytest.raises(BadImagesError, match="2 images of 10") as caught:
        check_images(index_images(path, seed=1), LIMITS)
    assert "  x/3.png (line 5 of the table): no such file" in str(caught.value)
    assert "  x/4.png (line 6 of the table): looks like HTML, 14 bytes\n" in str(caught.value)
    assert len(check_images(index_images(path, seed=1), LIMITS, on_bad="skip", max_bad_fraction=0.5).bad) == 2


def test_a_table_whose_images_are_all_elsewhere_says_where_they_were_looked_for(tmp_path):
    (tmp_path / "tables").mkdir()
    path = write(tmp_path / "tables", labelled(TEN), draw_images=False)
    draw(tmp_path / "pictures", *TEN)
    with pytest.raises(
        DataError, match=r"none of the 10 images of .*, for instance x/0.png. .*data.image_folder"
    ):
        index_images(path, seed=1)
    index = index_images(path, image_folder=str(tmp_path / "pictures"), seed=1)
    assert index.root == tmp_path / "pictures"
    check_images(index, LIMITS)
    with pytest.raises(DataError, match="no such directory"):
        index_images(path, image_folder=str(tmp_path / "gone"), seed=1)


def test_absolute_paths_below_the_folder_are_the_same_images(tmp_path):
    draw(tmp_path, *TEN)
    relative = write(tmp_path, labelled(TEN), draw_images=False)
    absolute = write(tmp_path, labelled([f"{tmp_path}/{name}" for name in TEN]), "a.csv", draw_images=False)
    assert index_images(relative, seed=1).samples == index_images(absolute, seed=1).samples


def test_images_outside_the_folder_of_the_table_can_be_named(tmp_path):
    draw(tmp_path, *TEN)
    (tmp_path / "tables").mkdir()
    names = [f"../{name}" for name in TEN[:5]] + [str(tmp_path / name) for name in TEN[5:]]
    index = index_images(write(tmp_path / "tables", labelled(names), draw_images=False), seed=1)
    assert {sample.name for sample in index.samples} == set(names)
    check_images(index, LIMITS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1.png,cat\n2.png,cat\n", r"need at least 2 classes; the rows of .* have 1: 'cat' \(2 images\)"),
        ("1.png,cat\n2.png,Cat\n", r"classes 'Cat' and 'cat' differ only in case"),
        ("1.png,cafe\u0301\n2.png,caf\xe9\n", r"classes .* are the same text in different bytes"),
        (
            "1.png,cat\n2.png,dog\n3.png,dog\n",
            r"too few images to train and validate on in 'cat' \(1 image\)",
        ),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        index_images(write(tmp_path, f"image,label\n{rows}"), seed=1)


def test_a_class_only_in_val_rows_is_refused_and_one_missing_there_warned_of(tmp_path):
    start = "image,label,split\n1.png,cat,train\n2.png,dog,train\n3.png,cat,val\n"
    index = index_images(write(tmp_path, start), seed=1)
    assert index.warnings == (f"classes of {tmp_path}/labels.csv without a val row: 'dog' (1 image)",)
    with pytest.raises(
        DataError, match=r"val rows of .* have classes that its train rows have not: 'owl' \(1"
    ):
        index_images(write(tmp_path, start + "4.png,owl,val\n"), seed=1)


# With the classes of a model


def test_a_table_is_matched_with_the_classes_of_a_model(tmp_path):
    path = write(tmp_path, "image,label\n1.png,cat\n2.png,owl\n")
    found = match_classes(path, ["cat", "dog"])
    assert found.index.counts("test") == {"cat": 1, "dog": 0}
    assert (found.unknown, found.missing) == ({"owl": 1}, ("dog",))
    with pytest.raises(DataError, match="the labels there are 'cat', 'owl', the model knows 'x'"):
        match_classes(path, ["x"])


def test_the_rows_of_one_split_are_matched(tmp_path):
    path = write(tmp_path, "image,label,split\n1.png,cat,train\n2.png,cat,val\n3.png,dog,val\n")
    assert len(match_classes(path, ["cat", "dog"], columns=USUAL_COLUMNS, split="val").index.samples) == 2
    with pytest.raises(DataError, match=r"has no test rows; it has 1 train, 2 val. Choose with --split"):
        match_classes(path, ["cat", "dog"], columns=USUAL_COLUMNS, split="test")


# init


def test_a_config_for_a_table_loads_and_says_what_validates(tmp_path):
    path = write(tmp_path, labelled(TEN), draw_images=False)
    assert "10 images of 2 classes" in write_config(path, tmp_path / "one.yaml")
    assert load_config(tmp_path / "one.yaml").data.path == str(path)
    assert load_config(tmp_path / "one.yaml").data.val == 0.2
    path.write_text("image,label,split\n1.png,cat,train\n2.png,dog,train\n3.png,dog,val\n")
    assert "2 training images of 2 classes" in write_config(path, tmp_path / "two.yaml")
    assert load_config(tmp_path / "two.yaml").data.val == "auto"
    assert config_name(path) == "labels.yaml"


def test_a_table_of_one_class_gets_no_config(tmp_path):
    path = write(tmp_path, "image,label\n1.png,cat\n", draw_images=False)
    with pytest.raises(DataError, match="need at least 2 classes; the rows to train on have 'cat'"):
        write_config(path, tmp_path / "one.yaml")


# From end to end


@pytest.fixture(scope="module")
def table_run(images, tmp_path_factory):
    """Return a table of the three classes beside their images, and the directory of a run on it."""
    folder = tmp_path_factory.mktemp("table")
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    table = folder / "labels.csv"
    table.write_text("picture,label\n" + "".join(f"{name},{name[:3]}\n" for name in names))
    config = write_small_config(folder, table)
    keys = ["data.columns.image=picture", f"data.image_folder={images}"]
    result = run_finetune("train", config, *keys, "--run-dir", folder / "run")
    assert result.exit_code == 0, result.output
    return table, folder / "run", config, keys


def test_a_run_on_a_table_equals_one_on_the_same_images_in_folders(table_run, small_run):
    _, run, _, _ = table_run
    assert (run / "split.csv").read_bytes() == (small_run / "split.csv").read_bytes()
    assert (run / "model.safetensors").read_bytes() == (small_run / "model.safetensors").read_bytes()


def test_a_run_on_a_table_is_evaluated_on_its_own_images_and_on_other_tables(table_run, tmp_path):
    _, run, _, _ = table_run
    own = run_finetune("evaluate", run, "--json")
    assert own.exit_code == 0, own.output
    other = draw_images(tmp_path, each=2) / "other.csv"
    other.write_text("picture,label\ncat/cat01.png,cat\n")
    result = run_finetune("evaluate", run, other, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 1


def test_the_images_of_a_table_are_predicted_in_its_order(table_run, tmp_path):
    _, run, _, _ = table_run
    other = draw_images(tmp_path, each=2) / "to_predict.csv"
    other.write_text("picture\nowl/owl01.png\ncat/cat01.png\nowl/owl01.png\nnope.png\n")
    result = run_finetune("predict", run, other, "--json")
    assert result.exit_code == 3
    answers = json.loads(result.stdout)
    assert [os.path.basename(answer["image"]) for answer in answers] == [
        *("owl01.png", "cat01.png", "owl01.png", "nope.png"),
    ]
    assert answers[0]["predictions"][0]["class"] == "owl"
    assert "no such file" in answers[3]["error"]


def test_groups_and_dry_run_understand_a_table(table_run):
    _, _, config, keys = table_run
    assert run_finetune("groups", config, *keys).exit_code == 0
    result = run_finetune("train", config, *keys, "--dry-run")
    assert "3 classes, images: 30 train, 6 val" in result.stdout
    assert run_finetune("groups", config, keys[1], "data.columns.image=pict").exit_code == 2
