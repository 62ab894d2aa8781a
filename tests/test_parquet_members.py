"""Images inside a Parquet file, as dataset hubs write them, are read in place like those of an archive."""

import contextlib
import io
import json
import os
import random
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from conftest import draw_images, index_images, run_finetune
from PIL import Image

from finetune.commands.init import write_config
from finetune.config.load import load_config
from finetune.data.archives import parquet_members
from finetune.data.image_files import file_exists, file_status, open_file
from finetune.data.images import ImageLimits
from finetune.data.index import load_sample
from finetune.data.indexing.build import list_images
from finetune.data.quality.scan import BadImagesError, check_images
from finetune.errors import DataError, FinetuneError
from finetune.experiment.read_data import read_index

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

CLASSES = ("cat", "dog", "owl")


def pictures(each=4):
    """Return the bytes of drawn images with the number of their class."""
    generator = np.random.default_rng(1)
    found = []
    for row in range(3 * each):
        pixels = generator.integers(0, 90, (20, 24, 3), dtype=np.uint8)
        pixels[:, :, row % 3] += 120
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        found.append((file.getvalue(), row % 3))
    return found


def features(**more):
    """Return the metadata of a schema in which a hub says what its columns are."""
    label = {"names": list(CLASSES), "_type": "ClassLabel"}
    return {
        "huggingface": json.dumps(
            {"info": {"features": {"image": {"_type": "Image"}, "label": label} | more}}
        )
    }


def write_hub(path, rows, *, names=None, metadata=None, group=5, **columns):
    """Write a file as dataset hubs do: bytes and names of images, and numbers of classes."""
    images = [{"bytes": content, "path": names and names[number]} for number, (content, _) in enumerate(rows)]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    data = {
        "image": pyarrow.array(images, kind),
        "label": pyarrow.array([k for _, k in rows], pyarrow.int64()),
    }
    data |= {name: pyarrow.array(values) for name, values in columns.items()}
    table = pyarrow.table(data).replace_schema_metadata(features() if metadata is None else metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=group)
    return path


def labels_of(index):
    return {name: label for name, _, label in index.rows()}


def test_images_and_names_of_classes_come_from_the_file_itself(tmp_path):
    rows = pictures()
    index = index_images(write_hub(tmp_path / "data.parquet", rows), seed=1)
    assert labels_of(index) == {f"data.parquet/{n:06d}.jpg": CLASSES[k] for n, (_, k) in enumerate(rows)}
    assert index.layout.line() == "table: images in column 'image', labels in 'label'"
    for sample in index.samples:
        content = rows[int(sample.name[-10:-4])][0]
        with open_file(index.root / sample.name) as file:
            assert file.read() == content
        assert file_status(index.root / sample.name).size == len(content)
        seen = np.asarray(load_sample(index, sample, ImageLimits()))
        assert np.array_equal(seen, np.asarray(Image.open(io.BytesIO(content))))
    assert sorted(os.listdir(tmp_path)) == ["data.parquet"]


def test_members_end_as_the_files_did_that_they_were(tmp_path):
    rows = pictures()
    names = [f"x/{n}.png" if n % 2 else None for n in range(len(rows))]
    index = index_images(write_hub(tmp_path / "data.parquet", rows, names=names), seed=1)
    assert {sample.name[-10:] for sample in index.samples} == {
        f"{n:06d}.{'png' if n % 2 else 'jpg'}" for n in range(len(rows))
    }


def test_numbers_without_names_are_classes_themselves_and_one_out_of_range_is_a_fault(tmp_path):
    path = write_hub(tmp_path / "data.parquet", pictures(), metadata={})
    assert index_images(path, seed=1).class_names == ("0", "1", "2")
    path = write_hub(tmp_path / "data.parquet", [*pictures(), (pictures()[0][0], -1)])
    with pytest.raises(DataError, match="row 13: the label is empty"):
        index_images(path, seed=1)


@pytest.mark.parametrize(
    "metadata", ["no JSON", "[" * 100_000, "[1]", '{"info": null}', '{"info": {"features": 3}}']
)
def test_metadata_that_says_something_else_is_passed_over(tmp_path, metadata):
    path = write_hub(tmp_path / "data.parquet", pictures(), metadata={"huggingface": metadata})
    assert index_images(path, seed=1).class_names == ("0", "1", "2")


def test_plain_bytes_are_images_if_they_begin_like_one(tmp_path):
    rows = pictures()
    table = pyarrow.table(
        {"jpg": [content for content, _ in rows], "cls": [k for _, k in rows], "raw": [b"x"] * 12}
    )
    parquet.write_table(table, tmp_path / "data.parquet")
    index = index_images(tmp_path / "data.parquet", seed=1)
    assert len(index.samples) == 12
    assert (index.layout.image_column, index.layout.label_column) == ("jpg", "cls")


def test_two_columns_of_images_are_asked_about(tmp_path):
    rows = pictures()
    contents = [content for content, _ in rows]
    table = pyarrow.table({"before": contents, "after": contents[::-1], "label": [k for _, k in rows]})
    parquet.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(DataError, match=r"set data.columns.image: before or data.columns.image: after"):
        index_images(tmp_path / "data.parquet", seed=1)


def test_rows_without_an_image_and_broken_ones_are_listed(tmp_path):
    rows = pictures()
    rows[3], rows[7] = (None, 0), (b"no image", 1)
    index = index_images(write_hub(tmp_path / "data.parquet", rows), seed=1)
    with pytest.raises(BadImagesError, match="2 images of 12") as caught:
        check_images(index, ImageLimits())
    assert "data.parquet/000003.jpg (row 4 of the table): " in str(caught.value)
    assert "data.parquet/000007.jpg (row 8 of the table): " in str(caught.value)


def test_damage_is_an_error_of_the_image_and_of_no_parquet_at_all_of_the_table(tmp_path):
    path = write_hub(tmp_path / "data.parquet", pictures(), group=12)
    content = bytearray(path.read_bytes())
    index = index_images(path, seed=1)
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"damaged|."):
        open_file(index.root / index.samples[0].name)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a Parquet file that can be read"):
        index_images(path, seed=1)
    assert not file_exists(tmp_path / "data.parquet.txt" / "000000.jpg")


def digest_of(path):
    with open_file(path) as file:
        return hash(file.read())


def test_threads_and_forked_processes_read_the_same_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_members, "_KEPT", 1)  # so that groups are decoded again and again
    rows = pictures(20)
    path = write_hub(tmp_path / "data.parquet", rows, group=7)
    names = [path / f"{n:06d}.jpg" for n in np.random.default_rng(3).permutation(len(rows))]
    expected = [hash(rows[int(name.stem)][0]) for name in names]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest_of, names)) == expected
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        assert list(pool.map(digest_of, names)) == expected


@pytest.mark.slow
def test_a_run_on_a_parquet_file_does_not_depend_on_workers(tmp_path):
    draw_images(tmp_path / "photos", each=8)
    files = sorted((tmp_path / "photos").rglob("*.png"))
    rows = [(file.read_bytes(), CLASSES.index(file.parent.name)) for file in files]
    (tmp_path / "data").mkdir()
    split = ["val" if n % 4 == 0 else "train" for n in range(len(rows))]
    names = [f"data.parquet/{n:06d}.png" for n in range(len(rows))]
    path = write_hub(tmp_path / "data.parquet", rows, names=names, split=split)
    write_config(path, tmp_path / "new.yaml")
    keys = ["model.arch=shufflenet_v2_x0_5", "model.weights=builtin:glyphs", "data.image_size=32",
            "precision=float32", "stages=[{name: all, train: all, epochs: 1, lr: 0.01}]"]  # fmt: skip
    models = []
    for workers in (0, 2):
        run = tmp_path / f"run{workers}"
        result = run_finetune(
            "train", tmp_path / "new.yaml", *keys, f"data.workers={workers}", "--run-dir", run
        )
        assert result.exit_code == 0, result.output
        models.append((run / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    for command in ("evaluate", "predict"):
        result = run_finetune(command, tmp_path / "run0", path, "--json")
        assert result.exit_code == 0, result.output
    assert not any(answer.get("error") for answer in json.loads(result.stdout))


def test_files_of_splits_as_a_hub_names_them_are_one_data_set(tmp_path):
    rows = pictures(8)
    hub = tmp_path / "hub"
    write_hub(hub / "data" / "train-00000-of-00002.parquet", rows[:9])
    write_hub(hub / "data" / "train-00001-of-00002.parquet", rows[9:18])
    write_hub(hub / "data" / "test-00000-of-00001.parquet", rows[18:])
    (hub / "README.md").write_text("words")
    index = index_images(hub, seed=42)
    assert {s: len([1 for _, split, _ in index.rows() if split == s]) for s in ("train", "val", "test")} == {
        "train": 15, "val": 3, "test": 6,
    }  # fmt: skip
    assert index.samples[0].name == "data/test-00000-of-00001.parquet/000000.jpg"
    assert index.class_names == CLASSES
    write_config(hub, tmp_path / "new.yaml")
    assert set(read_index(load_config(tmp_path / "new.yaml")).rows()) == set(index.rows())


def test_a_folder_of_parquet_files_is_evaluated_and_predicted(small_run, tmp_path):
    write_hub(tmp_path / "hub" / "train.parquet", pictures(2))
    write_hub(tmp_path / "hub" / "validation.parquet", pictures(3))
    result = run_finetune("evaluate", small_run, tmp_path / "hub", "--json")
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (0, 9)
    result = run_finetune("predict", small_run, tmp_path / "hub", "--json")
    assert (result.exit_code, len(json.loads(result.stdout))) == (0, 15)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train/0000.parquet", "validation/0000.parquet"), {"train": 6, "val": 6}),
        (("part-0.parquet", "part-1.parquet"), {"train": 9, "val": 3}),
        (("default/train/0.parquet",), {}),
        (("train.parquet", "valid.parquet"), {"train": 6, "val": 6}),
    ],
)
def test_splits_are_told_by_folders_or_names(tmp_path, names, splits):
    for n, name in enumerate(names):
        write_hub(tmp_path / "hub" / name, pictures(2) if n == 0 else pictures(3)[3:])
    if not splits:
        with pytest.raises(DataError, match=r"no images in .*\nParquet is read where it lies"):
            index_images(tmp_path / "hub", seed=1)
        return
    index = index_images(tmp_path / "hub", seed=1)
    assert {name: index.count(name) for name in splits} == splits


def test_files_that_are_named_like_no_split_are_asked_about(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write_hub(tmp_path / "hub" / name, pictures())
    with pytest.raises(DataError, match=r"'a.parquet' is named like no split. Which is the data set\?"):
        index_images(tmp_path / "hub", seed=1)


@pytest.mark.parametrize("below", ["", "data/train-00000-of-00001.parquet"])
def test_parquet_in_an_archive_is_refused_with_the_command_that_unpacks_it(tmp_path, below):
    write_hub(tmp_path / "train.parquet", pictures(1))
    with zipfile.ZipFile(tmp_path / "hub.zip", "w") as packed:
        packed.write(tmp_path / "train.parquet", "data/train-00000-of-00001.parquet")
    with pytest.raises(DataError) as refused:
        index_images(tmp_path / "hub.zip" / below, seed=1)
    assert str(refused.value) == (
        f"{tmp_path}/hub.zip holds Parquet: that is not read inside an archive.\n"
        "Unpack it (unzip hub.zip -d hub) and set data.path to the folder."
    )


@pytest.mark.fuzz
@pytest.mark.parametrize("many", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_a_spoiled_file_is_read_or_refused_and_never_anything_else(tmp_path, many):
    number = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32) if many > 100 else 3))
    print(f"FUZZ_SEED={number}")
    chance = random.Random(number)
    whole = write_hub(tmp_path / "data.parquet", pictures()).read_bytes()
    for _ in range(many):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            back = chance.randrange(len(content) if chance.random() < 0.5 else 900)  # most is at the end
            content[-1 - back] = chance.randrange(256)
        cut = chance.randrange(len(content)) if chance.random() < 0.1 else len(content)
        (tmp_path / "data.parquet").write_bytes(content[:cut])
        with contextlib.suppress(FinetuneError):
            index = list_images(tmp_path / "data.parquet")
            check_images(index, ImageLimits(), on_bad="skip", max_bad_fraction=1.0)


@pytest.mark.parametrize("name", ["image.path", "label"])
def test_a_column_that_cannot_be_read_is_told_with_the_file(tmp_path, name):
    path = write_hub(tmp_path / "data.parquet", pictures())
    whole, group = path.read_bytes(), parquet.read_metadata(path).row_group(0)
    column = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == name)
    start = column.dictionary_page_offset or column.data_page_offset
    said = set()
    for byte in range(start, start + column.total_compressed_size):
        path.write_bytes(whole[:byte] + b"\xff" + whole[byte + 1 :])
        try:
            list_images(path)
        except DataError as error:
            said.add(str(error).partition(f"{path} ")[2].partition(":")[0])
    assert "is not a Parquet file that can be read" in said
