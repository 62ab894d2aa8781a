from pathlib import Path

import pytest
from conftest import index_images, run_finetune

from finetune.commands.init import write_config
from finetune.config.load import load_config
from finetune.errors import ConfigError, DataError


def draw_classes(root: Path, counts: dict[str, int]) -> Path:
    for name, number in counts.items():
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(number):
            (folder / f"{index}.jpg").touch()
    return root


def test_a_config_for_class_folders_loads_and_splits_a_fraction(tmp_path: Path):
    photos = draw_classes(tmp_path / "photos", {"ants": 30, "bees": 40})
    done = write_config(photos, tmp_path / "pets.yaml")
    config = load_config(tmp_path / "pets.yaml")
    assert config.data.path == str(photos)
    assert config.data.val == 0.2
    assert f"wrote {tmp_path / 'pets.yaml'} for 70 images of 2 classes; next: finetune train" in done


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_config_for_split_folders_validates_on_the_one_that_is_there(tmp_path: Path, name: str):
    draw_classes(tmp_path / "photos" / "train", {"ants": 3, "bees": 4})
    draw_classes(tmp_path / "photos" / name, {"ants": 1, "bees": 1})
    done = write_config(tmp_path / "photos", tmp_path / "pets.yaml")
    assert load_config(tmp_path / "pets.yaml").data.val == name
    assert "7 training images of 2 classes" in done


def test_a_folder_is_read_as_training_reads_it(tmp_path: Path):
    """A folder called like an image is one like any other, for both of them."""
    photos = draw_classes(tmp_path / "photos", {"ants": 3, "bees": 4, "bees/extra.png": 2, "more.png": 5})
    assert "14 images of 3 classes" in write_config(photos, tmp_path / "pets.yaml")
    assert len(index_images(photos, seed=1).samples) == 14


def test_a_config_comes_with_the_warnings_that_a_training_gives(tmp_path: Path):
    photos = draw_classes(tmp_path / "photos", {"train/ants": 3, "train/bees": 4, "val/ants": 1, "extra": 2})
    (photos / "train" / "ants" / "notes.txt").touch()
    done = write_config(photos, tmp_path / "pets.yaml").splitlines()
    assert f"warning: folders in {photos} that are not used: 'extra'" in done
    assert any("without an image in" in line and "'bees' (4 images)" in line for line in done)
    assert f"warning: ignored 1 file in {photos / 'train'}: .txt 1" in done
    assert done[-1].startswith("wrote ")


def test_what_training_refuses_is_a_warning_of_init(tmp_path: Path):
    photos = draw_classes(tmp_path / "photos" / "train", {"ants": 3, "bees": 4}).parent
    draw_classes(photos / "val", {"ants": 3, "wasps": 4})
    done = write_config(photos, tmp_path / "pets.yaml")
    assert "has classes that" in done
    assert "wrote " in done


def test_classes_with_too_few_images_are_a_warning_of_init(tmp_path: Path):
    photos = draw_classes(tmp_path / "photos", {"ants": 3, "bees": 4, "wasps": 1})
    table = tmp_path / "photos.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}\n" for path in sorted(photos.rglob("*.*"))]
    table.write_text("image,label\n" + "".join(rows))
    for data in (photos, table):
        lines = write_config(data, tmp_path / f"{data.name}.yaml").splitlines()
        assert any("too few images to train and validate on in 'wasps' (1 image)" in line for line in lines)
        with pytest.raises(DataError, match="wasps"):
            index_images(data, seed=1)
    draw_classes(photos / "train", {"ants": 3, "bees": 1})
    draw_classes(photos / "val", {"ants": 3, "bees": 1})
    assert "too few" not in write_config(photos, tmp_path / "split.yaml")


def test_train_among_other_classes_is_a_class(tmp_path: Path):
    photos = draw_classes(tmp_path / "photos", {"train": 3, "bus": 3, "car": 3})
    assert "9 images of 3 classes" in write_config(photos, tmp_path / "pets.yaml")


@pytest.mark.parametrize(("number", "batch_size"), [(2, 8), (25, 8), (100, 16), (200, 32), (1000, 64)])
def test_few_images_get_small_batches_and_an_epoch_has_several_steps(
    tmp_path: Path, number: int, batch_size: int
):
    photos = draw_classes(tmp_path / "photos", {"ants": number, "bees": number})
    write_config(photos, tmp_path / "pets.yaml")
    assert load_config(tmp_path / "pets.yaml").data.batch_size == batch_size


@pytest.mark.parametrize(("number", "lr"), [(20, "3e-3"), (150, "auto")])
def test_of_few_images_no_rate_is_searched(tmp_path: Path, number: int, lr: str):
    """A race that a handful of validation images judge finds a rate by accident, or none."""
    write_config(draw_classes(tmp_path / "photos", {"ants": number, "bees": number}), tmp_path / "pets.yaml")
    assert str(load_config(tmp_path / "pets.yaml").stages[0].lr) == lr


def test_few_images_are_seen_more_often(tmp_path: Path):
    few = draw_classes(tmp_path / "few", {"ants": 20, "bees": 20})
    many = draw_classes(tmp_path / "many", {"ants": 700, "bees": 700})
    write_config(few, tmp_path / "few.yaml")
    write_config(many, tmp_path / "many.yaml")
    epochs = [load_config(tmp_path / f"{name}.yaml").stages[1].epochs for name in ("few", "many")]
    assert epochs[0] > epochs[1]


def test_images_deeper_down_count_and_hidden_ones_do_not(tmp_path: Path):
    photos = draw_classes(tmp_path / "photos", {"ants/black": 2, "ants/.trash": 5, "bees": 2, ".git": 1})
    (photos / "bees" / ".hidden.jpg").touch()
    (photos / "bees" / "notes.txt").touch()
    assert "4 images of 2 classes" in write_config(photos, tmp_path / "pets.yaml")


@pytest.mark.parametrize("name", ["a: b", "#1", "yes", "10", "it's", 'say "x"', "new\nline", "größe"])
def test_a_folder_with_an_odd_name_is_written_so_that_it_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    draw_classes(tmp_path / name, {"ants": 3, "bees": 4})
    write_config(Path(name), Path(f"{name}.yaml"))
    assert load_config(Path(f"{name}.yaml")).data.path == name


def test_an_existing_file_is_left_alone(tmp_path: Path):
    photos = draw_classes(tmp_path / "photos", {"ants": 3, "bees": 4})
    target = tmp_path / "pets.yaml"
    target.write_text("mine")
    with pytest.raises(ConfigError, match="exists already and is left alone"):
        write_config(photos, target)
    assert target.read_text() == "mine"


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path):
    photos = draw_classes(tmp_path / "photos", {"ants": 3, "bees": 4})
    with pytest.raises(ConfigError, match=r"nowhere/pets\.yaml: there is no folder .*nowhere$"):
        write_config(photos, tmp_path / "nowhere" / "pets.yaml")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no images in .*one for each class"),
        ({"ants": 0, "bees": 0}, "no images in .*one for each class"),
        ({"ants": 3}, r"need at least 2 classes; .* has 1: 'ants' \(3 images\)"),
        ({"ants": 3, "bees": 0}, "class folders of .* without an image: 'bees'"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, counts: dict[str, int], message: str):
    photos = tmp_path / "photos"
    photos.mkdir()
    draw_classes(photos, counts)
    with pytest.raises(DataError, match=message):
        write_config(photos, tmp_path / "pets.yaml")
    assert not (tmp_path / "pets.yaml").exists()


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="no such directory"):
        write_config(tmp_path / "nowhere", tmp_path / "pets.yaml")
    with pytest.raises(DataError, match="is not a folder; expected"):
        write_config(tmp_path / "file", tmp_path / "pets.yaml")


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path):
    photos = draw_classes(tmp_path / "caf\udce9", {"ants": 3, "bees": 4})
    with pytest.raises(DataError, match="the name is not UTF-8"):
        write_config(photos, tmp_path / "pets.yaml")


def test_a_table_with_more_columns_shows_how_the_model_can_see_them(tmp_path: Path):
    lines = ["image,label,site,no: 1", "a.png,cat,x,1", "b.png,dog,y,2"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    target = tmp_path / "labels.yaml"
    write_config(tmp_path / "labels.csv", target)
    text = target.read_text()
    assert load_config(target).data.columns.metadata == {}
    target.write_text(text.replace("  # columns:", "  columns:"))
    assert load_config(target).data.columns.metadata == {"site": "auto", "no: 1": "auto"}


@pytest.mark.parametrize("name", ["patient", "Patient ID", "subject_id", "caseId", "plants", "camera"])
def test_a_column_that_rows_have_in_common_is_proposed_as_group(tmp_path: Path, name: str):
    rows = [f"{number}.png,{'cat' if number % 2 else 'dog'},p{number // 3},x{number}" for number in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join([f"image,label,{name},site", *rows]))
    target = tmp_path / "labels.yaml"
    write_config(tmp_path / "labels.csv", target)
    text = target.read_text()
    assert load_config(target).data.columns.group is None
    target.write_text(text.replace("  # columns:", "  columns:"))
    columns = load_config(target).data.columns
    assert (columns.group, columns.metadata) == (name, {"site": "auto"})


@pytest.mark.parametrize(
    ("name", "shared"),
    [("patient", 1), ("patient", 12), ("site", 3), ("outpatient", 3)],
    ids=["a value for each row", "one value", "another name", "part of a word"],
)
def test_other_columns_are_proposed_as_metadata(tmp_path: Path, name: str, shared: int):
    rows = [f"{n}.png,{'cat' if n % 2 else 'dog'},p{n // shared}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join([f"image,label,{name}", *rows]))
    write_config(tmp_path / "labels.csv", tmp_path / "labels.yaml")
    assert f"  # columns: {{metadata: [{name}]}}\n" in (tmp_path / "labels.yaml").read_text()


def test_a_table_whose_cells_hold_several_classes_says_what_separates_them(tmp_path: Path):
    lines = ["image,label", "a.png,cat;dog", "b.png,dog", "c.png,cat", "d.png,", "e.png,dog"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    target = tmp_path / "labels.yaml"
    said = write_config(tmp_path / "labels.csv", target)
    assert "5 images of 2 classes" in said
    assert load_config(target).data.label_separator == ";"
    (tmp_path / "plain.csv").write_text("image,label\na.png,cat;dog\nb.png,owl\n")
    write_config(tmp_path / "plain.csv", tmp_path / "plain.yaml")
    assert load_config(tmp_path / "plain.yaml").data.label_separator == "auto"


@pytest.mark.parametrize(
    ("gpu", "gigabytes", "size", "batch"),
    [
        (True, 24, None, 64),
        (False, 24, 160, 64),
        (False, 6, 160, 32),
        (False, 2, 160, 16),
        (True, None, None, 64),
    ],
)
def test_sizes_fit_the_machine(tmp_path: Path, monkeypatch, gpu, gigabytes, size, batch):
    memory = None if gigabytes is None else gigabytes * 2**30
    monkeypatch.setattr("finetune.commands.init.has_gpu", lambda: gpu)
    monkeypatch.setattr("finetune.commands.init.usable_memory", lambda: memory)
    write_config(draw_classes(tmp_path / "photos", {"ants": 400, "bees": 400}), tmp_path / "pets.yaml")
    data = load_config(tmp_path / "pets.yaml").data
    assert (data.image_size, data.batch_size) == (size, batch)


def test_a_config_in_place_of_data_is_told_apart_from_yolos_list(images, tmp_path):
    config = tmp_path / "pets.yaml"
    config.write_text(f'seed: 1\ndata: {{path: "{images}"}}\n')
    result = run_finetune("init", config, "--output", tmp_path / "new.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"error: {config} is a config already.\nTrain: finetune train {config}\n"
    config.write_text("train: images\nnames: [cat, dog]\n")
    assert "YOLO" in run_finetune("init", config, "--output", tmp_path / "new.yaml").stderr


def test_a_key_in_the_words_of_a_config_is_answered_with_the_argument(tmp_path: Path):
    draw_classes(tmp_path / "photos", {"ants": 3, "bees": 4})
    asked = run_finetune("init", tmp_path / "photos", "data.layout: classes")
    assert asked.exit_code == 2
    assert "expected key=value, write data.layout=classes" in asked.output
