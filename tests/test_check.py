"""`finetune check`, through the command line, on real files of every kind."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import torch
from conftest import draw_images, index_images, run_finetune, write_small_config
from PIL import Image

from finetune.commands.check import report as check_report
from finetune.commands.check.stage_cost import measure_stage_costs, stage_cost_loaders
from finetune.commands.prepare import prepare
from finetune.config.load import load_config
from finetune.data.quality.copies import find_copies, find_copies_in
from finetune.data.quality.finding import Finding, Item
from finetune.data.quality.fingerprint import take_fingerprints
from finetune.display import Display
from finetune.training.averaging import WeightAverage


@pytest.fixture
def data(images, tmp_path):
    """Return a copy of the three class folders, to be spoiled."""
    return shutil.copytree(images, tmp_path / "data")


def check(tmp_path, data, *arguments):
    """Check a folder, and give exit code and document."""
    result = run_finetune("check", write_small_config(tmp_path, data), "--json", *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.exit_code
    return result.exit_code, document


def of_kind(document, kind):
    """Return the one finding of a kind."""
    (finding,) = [finding for finding in document["findings"] if finding["kind"] == kind]
    return finding


def details(finding):
    return {
        " = ".join(image["name"] for image in item["images"]): item["detail"] for item in finding["items"]
    }


def noise(seed, size=(40, 48)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8))


def bomb(side):
    """Write a PNG of a few kilobytes that unpacks to side × side black pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + (side + 7) // 8) * side)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_good_images_pass_with_a_plan(tmp_path, data):
    exit_code, document = check(tmp_path, data, "--strict")
    assert exit_code == 0
    assert set(document) == {"exit_code", "layout", "findings", "images", "classes", "plan"}
    assert document["images"] == 36
    assert document["classes"]["cat"] == {"train": 10, "val": 2, "test": 0}
    assert document["findings"] == []
    plan = document["plan"]
    assert set(plan) == {
        *("arch", "weights", "device", "precision", "image_size", "batch_size", "workers", "stages"),
        "seconds",
    }
    assert (plan["arch"], plan["weights"], plan["image_size"]) == ("shufflenet_v2_x0_5", "builtin:glyphs", 32)
    assert [(stage["name"], stage["epochs"], stage["steps"]) for stage in plan["stages"]] == [
        ("frozen", 1, 3),
        ("unfrozen", 2, 6),
    ]
    for stage in plan["stages"]:
        assert set(stage) == {
            *("name", "image_size", "epochs", "steps", "groups"),
            *("seconds_per_step", "seconds", "peak_memory"),
        }
        assert 0 < stage["seconds_per_step"] * stage["steps"] < stage["seconds"]
        assert stage["peak_memory"] > 100e6
    assert [group["lr"] for group in plan["stages"][0]["groups"]] == [None, None, 0.01]
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]))


def test_people_get_the_same_in_words(tmp_path, data):
    (data / "cat" / "cat00.png").write_bytes(b"")
    shutil.copy(data / "dog" / "dog00.png", data / "owl" / "twin.png")
    result = run_finetune("check", write_small_config(tmp_path, data))
    assert result.exit_code == 3
    for line in (
        "stage 1 of 2: frozen, 1 epoch, lr 0.01",
        "error: 1 image of 37 cannot be read\n  cat/cat00.png: empty file\n"
        "Fix or remove them, or set data.on_bad_image: skip.",
        "warning: the same file with two labels: 1 group of images\n  dog/dog00.png = owl/twin.png: ",
        "1 error, 1 warning: the errors keep a training from starting",
    ):
        assert line in result.stdout


def test_files_that_are_no_images_are_errors_and_say_why(tmp_path, data):
    cat, good = data / "cat", (data / "dog" / "dog01.png").read_bytes()
    noise(1).save(tmp_path / "x.jpg")
    jpeg = (tmp_path / "x.jpg").read_bytes()
    contents = {
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><title>404</title>",
        "half.jpg": jpeg[: len(jpeg) // 2],
        "almost.jpg": jpeg[:-2],
        "half.png": good[: len(good) // 2],
        "bomb.png": bomb(10_000),
        "text.webp": b"hello",
        "zeros.bmp": bytes(200),
    }
    for name, content in contents.items():
        (cat / name).write_bytes(content)
    os.mkfifo(cat / "pipe.png")
    (cat / "gone.gif").symlink_to("nowhere")
    (cat / "loop.tif").symlink_to("loop.tif")
    Image.fromarray(np.full((9, 9), 0.5, np.float32)).save(cat / "float.tif")
    exit_code, document = check(tmp_path, data)
    assert exit_code == 3
    finding = of_kind(document, "unreadable")
    assert finding["level"] == "error"
    assert finding["message"] == "12 images of 48 cannot be read"
    assert {name.removeprefix("cat/"): reason for name, reason in details(finding).items()} == {
        "empty.jpg": "empty file",
        "page.jpg": "looks like HTML, 33 bytes",
        "half.jpg": "truncated JPEG",
        "almost.jpg": "truncated JPEG",
        "half.png": "truncated PNG",
        "bomb.png": "100 MP is over data.max_pixels (50 MP)",
        "text.webp": "not an image of a supported format, 5 bytes",
        "zeros.bmp": "only zeros, 200 bytes",
        "pipe.png": "not a regular file",
        "gone.gif": "no such file, or a link to one that is gone",
        "loop.tif": "too many levels of symbolic links",
        "float.tif": "float images are not supported",
    }
    assert all(image["classes"] == ["cat"] for item in finding["items"] for image in item["images"])
    assert len(document["plan"]["stages"]) == 2  # tried on the images that are left


def test_bad_images_are_warnings_where_training_skips_them(tmp_path, data):
    (data / "cat" / "cat00.png").write_bytes(b"")
    skip = ("data.on_bad_image=skip", "data.max_bad_fraction=0.05")
    exit_code, document = check(tmp_path, data, *skip)
    assert (exit_code, of_kind(document, "unreadable")["level"]) == (0, "warning")
    assert check(tmp_path, data, *skip, "--strict")[0] == 3
    exit_code, document = check(tmp_path, data, "data.on_bad_image=skip")
    assert exit_code == 3
    assert (
        "2.78% of all images, more than data.max_bad_fraction allows"
        in of_kind(document, "unreadable")["advice"]
    )


def test_images_of_which_the_same_is_said_are_a_line_on_the_screen_and_json_has_all(tmp_path, data):
    for number in range(25):
        (data / "cat" / f"bad{number:02}.png").write_bytes(b"")
    result = run_finetune("check", write_small_config(tmp_path, data))
    lines = [line for line in result.stdout.splitlines() if ".png" in line]
    assert lines == [
        "  cat/bad00.png, cat/bad01.png, cat/bad02.png, cat/bad03.png and 21 more: empty file",
    ]
    assert "--json, --html and --csv list all" in result.stdout
    assert len(of_kind(check(tmp_path, data)[1], "unreadable")["items"]) == 25


def test_no_more_than_twenty_lines_are_shown_of_a_finding():
    items = tuple(Item((f"{number}.png",), f"{number} px wide") for number in range(25))
    stream = io.StringIO()
    check_report.show_finding(Finding("note", "tiny", "25 images are tiny", items=items), Display(stream))
    lines = stream.getvalue().splitlines()
    assert sum("px wide" in line for line in lines) == 20
    assert lines[-2:] == ["  … and 5 more", "  --json, --html and --csv list all"]


def test_real_files_of_every_kind_pass(tmp_path, data):
    colour = noise(5)
    for number, (name, image, options) in enumerate(
        [
            ("a.jpg", colour, {}),
            ("progressive.jpeg", colour, {"progressive": True}),
            ("cmyk.jpg", colour.convert("CMYK"), {}),
            ("grey.jpg", colour.convert("L"), {}),
            ("a.PNG", colour, {}),
            ("alpha.png", colour.convert("RGBA"), {}),
            ("sixteen.png", Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30)), {}),
            ("a.gif", colour, {}),
            ("a.webp", colour, {}),
            ("a.tif", colour, {}),
            ("a.tiff", colour.convert("1"), {}),
            ("a.bmp", colour.convert("P"), {}),
        ]
    ):
        folder = data / ("cat", "dog", "owl")[number % 3]
        image.save(folder / name, **options)
    exit_code, document = check(tmp_path, data)
    assert exit_code == 0, document["findings"]
    modes = {os.path.basename(name): mode for name, mode in details(of_kind(document, "mode")).items()}
    assert modes == {
        **{"cmyk.jpg": "CMYK", "grey.jpg": "grey", "alpha.png": "RGBA", "sixteen.png": "I;16"},
        **{"a.gif": "palette", "a.tiff": "black and white", "a.bmp": "palette"},
    }
    assert of_kind(document, "mode")["level"] == "note"


def test_a_data_set_in_one_mode_is_not_told_so(tmp_path):
    draw_images(tmp_path / "grey")
    for path in (tmp_path / "grey").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert check(tmp_path, tmp_path / "grey", "--strict")[1]["findings"] == []


def test_odd_pictures_are_warnings(tmp_path, data):
    first, second = noise(6), noise(7)
    first.save(data / "cat" / "moving.gif", save_all=True, append_images=[second])
    first.save(data / "cat" / "moving.webp", save_all=True, append_images=[second])
    first.save(data / "cat" / "moving.png", save_all=True, append_images=[second])
    first.save(data / "cat" / "pages.tif", save_all=True, append_images=[second])
    noise(8, (7, 20)).save(data / "dog" / "small.png")
    noise(9, (10, 201)).save(data / "dog" / "slim.png")
    exit_code, document = check(tmp_path, data)
    assert exit_code == 0
    assert len(of_kind(document, "animated")["items"]) == 4
    assert details(of_kind(document, "tiny")) == {"dog/small.png": "20 × 7"}
    assert details(of_kind(document, "slim")) == {"dog/slim.png": "201 × 10"}
    assert check(tmp_path, data, "--strict")[0] == 3


# Repeated images


def two_splits(tmp_path):
    draw_images(tmp_path / "data" / "train", each=12)
    for number, name in enumerate(("cat", "dog", "owl")):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        for i in range(3):
            noise(100 + 10 * number + i).save(tmp_path / "data" / "val" / name / f"{i}.png")
    return tmp_path / "data"


def test_copies_are_found_across_splits_across_labels_and_within_a_class(tmp_path):
    root = two_splits(tmp_path)
    shutil.copy(root / "train/cat/cat01.png", root / "val/cat/leak.png")
    shutil.copy(root / "train/dog/dog01.png", root / "train/owl/other.png")
    shutil.copy(root / "train/owl/owl01.png", root / "train/owl/again.jpg")
    exit_code, document = check(tmp_path, root)
    assert exit_code == 0
    assert details(of_kind(document, "copies-across-splits")) == {
        "train/cat/cat01.png = val/cat/leak.png": "train, val"
    }
    assert details(of_kind(document, "copies-two-labels")) == {
        "train/dog/dog01.png = train/owl/other.png": "dog, owl"
    }
    assert details(of_kind(document, "copies-repeated")) == {"train/owl/again.jpg = train/owl/owl01.png": ""}
    assert {finding["level"] for finding in document["findings"]} == {"warning"}
    assert of_kind(document, "copies-across-splits")["items"][0]["images"] == [
        {"name": "train/cat/cat01.png", "split": "train", "classes": ["cat"]},
        {"name": "val/cat/leak.png", "split": "val", "classes": ["cat"]},
    ]
    assert check(tmp_path, root, "--strict")[0] == 3


def test_resized_and_recompressed_copies_are_found(tmp_path):
    root = two_splits(tmp_path)
    big = noise(1, (12, 16)).resize((640, 480), Image.Resampling.BICUBIC)
    big.save(root / "train/cat/big.png")
    big.resize((320, 240)).save(root / "val/cat/small.jpg", quality=60)
    other = noise(2, (12, 16)).resize((640, 480), Image.Resampling.BICUBIC)
    other.save(root / "train/dog/a.png")
    other.save(root / "train/dog/b.jpg")
    _, document = check(tmp_path, root)
    assert details(of_kind(document, "lookalikes-across-splits")) == {
        "train/cat/big.png = val/cat/small.jpg": "train, val"
    }
    assert of_kind(document, "lookalikes-across-splits")["level"] == "warning"
    assert details(of_kind(document, "lookalikes-repeated")) == {"train/dog/a.png = train/dog/b.jpg": ""}
    assert of_kind(document, "lookalikes-repeated")["level"] == "note"


def test_a_group_shows_one_of_each_side_first(tmp_path):
    root = two_splits(tmp_path)
    for name in ("a", "b", "c"):
        shutil.copy(root / "train/cat/cat01.png", root / "train/cat" / f"{name}.png")
    shutil.copy(root / "train/cat/cat01.png", root / "val/dog/leak.png")
    assert details(of_kind(check(tmp_path, root)[1], "copies-two-labels")) == {
        "train/cat/a.png = val/dog/leak.png = train/cat/b.png = train/cat/c.png = train/cat/cat01.png": (
            "train cat, val dog"
        )
    }


def test_a_link_to_a_file_of_the_data_set_is_a_copy(tmp_path):
    root = two_splits(tmp_path)
    (root / "val/cat/link.png").symlink_to(root / "train/cat/cat01.png")
    of_kind(check(tmp_path, root)[1], "copies-across-splits")


@pytest.mark.parametrize("command", ["plan", "training", "resumed", "lr-find"])
def test_whatever_trains_warns_of_copies_across_splits_too(command, tmp_path):
    root, run = two_splits(tmp_path), tmp_path / "run"
    shutil.copy(root / "train/cat/cat01.png", root / "val/cat/leak.png")
    config = write_small_config(tmp_path, root)
    arguments = {
        "plan": ["train", config, "--dry-run"],
        "training": ["train", config, "--run-dir", run],
        "resumed": ["train", "--resume", run],
        "lr-find": ["lr-find", config, "lr_finder.steps=20"],
    }[command]
    if command == "resumed":
        run_finetune("train", config, "--run-dir", run)
        (run / "status.json").write_text('{"state": "running"}')
    result = run_finetune(*arguments)
    assert result.exit_code in ((0, 4) if command == "lr-find" else (0,)), result.output
    warning = (
        "warning: the same file in more than one split: 1 group of images, first train/cat/cat01.png = "
        "val/cat/leak.png; `finetune check` lists them all"
    )
    assert (result.stdout + result.stderr).count(warning) == 1


def test_training_digests_every_image_once_and_a_resumed_one_none(tmp_path, monkeypatch):
    root, run = two_splits(tmp_path), tmp_path / "run"
    shutil.copy(root / "train/cat/cat01.png", root / "val/cat/leak.png")
    digested = []

    def digest(file, method):
        if file.name.endswith(".png"):  # the file of the weights is digested as well
            digested.append(file.name)
        return file_digest(file, method)

    file_digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert run_finetune("train", write_small_config(tmp_path, root), "--run-dir", run).exit_code == 0
    assert sorted(digested) == sorted(str(path) for path in root.rglob("*.png"))
    (run / "status.json").write_text('{"state": "running"}')
    digested.clear()
    assert run_finetune("train", "--resume", run).exit_code == 0
    assert not [name for name in digested if name.endswith(".png")]


def test_fingerprints_show_the_same_copies_as_files(tmp_path):
    root = two_splits(tmp_path)
    shutil.copy(root / "train/cat/cat01.png", root / "val/cat/leak.png")
    shutil.copy(root / "train/dog/dog01.png", root / "train/owl/other.png")
    index = index_images(root, seed=0)
    files = take_fingerprints(index, {}, lambda done: None)
    assert find_copies_in(files) == find_copies(root, list(files))
    assert len(find_copies_in(files)) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_errors(tmp_path, data):
    (data / "cat" / "cat00.png").chmod(0)
    assert details(of_kind(check(tmp_path, data)[1], "unreadable")) == {
        "cat/cat00.png": "no permission to read it"
    }
    (data / "cat").chmod(0)
    exit_code, document = check(tmp_path, data)
    (data / "cat").chmod(0o700)
    assert exit_code == 3
    assert "cannot list" in of_kind(document, "layout")["message"]


# Classes and folders


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("Cat", "'Cat' and 'cat' differ only in case"),
        ("cat ", "class folder 'cat ' begins or ends with a blank"),
        ("nothing", "without an image: 'nothing'"),
    ],
)
def test_folders_that_are_no_data_set_are_errors(tmp_path, data, folder, message):
    (data / folder).mkdir()
    if folder != "nothing":
        noise(3).save(data / folder / "x.png")
    exit_code, document = check(tmp_path, data)
    assert (exit_code, document["plan"], document["classes"]) == (3, None, {})
    assert message in of_kind(document, "layout")["message"]


def test_names_that_differ_by_normalisation_are_errors(tmp_path, data):
    for name in ("caf\u00e9", "cafe\u0301"):
        (data / name).mkdir()
        noise(3).save(data / name / "x.png")
    exit_code, document = check(tmp_path, data)
    assert exit_code == 3
    assert "are the same text in different bytes" in of_kind(document, "layout")["message"]


def test_a_class_on_one_side_only_is_an_error_in_val_and_a_warning_in_train(tmp_path):
    root = two_splits(tmp_path)
    (root / "train" / "fox").mkdir()
    for number in range(12):
        noise(50 + number).save(root / "train" / "fox" / f"{number}.png")
    exit_code, document = check(tmp_path, root)
    assert exit_code == 0
    assert "without an image in" in of_kind(document, "layout")["message"]
    (root / "val" / "elk").mkdir()
    noise(99).save(root / "val" / "elk" / "x.png")
    assert check(tmp_path, root)[0] == 3


def test_classes_with_few_images_are_warnings(tmp_path):
    root = draw_images(tmp_path / "data", classes=("cat", "dog"))
    for path in sorted((root / "dog").iterdir())[5:]:
        path.unlink()
    exit_code, document = check(tmp_path, root)
    assert exit_code == 0
    assert (
        "1 class has fewer than 10 images to train on: 'dog' (4)"
        in of_kind(document, "few-images")["message"]
    )


def test_a_link_to_a_parent_is_told_and_not_followed(tmp_path, data):
    (data / "cat" / "loop").symlink_to(data)
    exit_code, document = check(tmp_path, data)
    assert (exit_code, document["images"]) == (0, 36)
    assert "it leads back to a folder that it is in" in of_kind(document, "layout")["message"]


def test_batches_that_are_too_big_are_a_warning(tmp_path, data):
    _, document = check(tmp_path, data, "data.batch_size=500")
    assert "500 is more than the 30 training images; using 30" in of_kind(document, "batch-size")["message"]
    assert document["plan"]["batch_size"] == 30


def test_names_are_harmless_on_a_terminal(tmp_path, data):
    (data / "cat" / "\x1b[2J\n.png").touch()
    (data / "cat" / os.fsdecode(b"\xff.png")).touch()
    result = run_finetune("check", write_small_config(tmp_path, data))
    assert "  cat/\\x1b[2J\\n.png: empty file\n  cat/\\udcff.png: empty file\n" in result.stdout
    assert len(of_kind(check(tmp_path, data)[1], "unreadable")["items"]) == 2


def test_nothing_is_written_into_the_data_folder(tmp_path, data):
    (data / "cat" / "bad.png").touch()
    before = {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]}
    check(tmp_path, data)
    assert {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]} == before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "small.yaml"}


# The plan


def test_weights_that_are_not_here_are_not_fetched(tmp_path, data, hub_folder):
    exit_code, document = check(
        tmp_path, data, "model.weights=default", "data.image_size=null", "data.batch_size=2"
    )
    assert exit_code == 0
    assert "shufflenetv2_x0.5-" in of_kind(document, "weights")["message"]
    assert (document["plan"]["weights"], document["plan"]["image_size"]) == ("default", 224)
    assert not hub_folder.exists()


def test_the_built_in_digits_have_a_plan_and_no_files_to_look_at(tmp_path):
    exit_code, document = check(tmp_path, "builtin:digits")
    assert (exit_code, document["images"], document["findings"]) == (0, 1797, [])
    assert document["plan"]["stages"][1]["steps"] == 2 * (1438 // 8)


def test_a_rate_that_is_still_to_be_found_is_said_to_be(tmp_path, data):
    result = run_finetune("check", write_small_config(tmp_path, data), "stages.frozen.lr=auto")
    assert result.exit_code == 0
    assert "; the search for the rate of frozen comes on top, and is not in this figure\n" in result.stdout


def test_what_the_times_are_from_is_said(tmp_path, data):
    result = run_finetune("check", write_small_config(tmp_path, data))
    assert re.search(
        r"^batches of 8; times are from a few steps of each stage, tried here\n"
        r"the whole training takes about \S+( s)?$",
        result.stdout,
        re.MULTILINE,
    )


def test_what_is_wrong_with_the_config_is_no_matter_of_the_data(tmp_path, data):
    config = write_small_config(tmp_path, data)
    assert run_finetune("check", config, "model.arch=resnet19").exit_code == 2
    assert run_finetune("check", config, "model.weights=nowhere/x.pth").exit_code == 7
    assert run_finetune("check", tmp_path / "nope.yaml").exit_code == 2


def test_a_missing_folder_must_be_fixed(tmp_path):
    exit_code, document = check(tmp_path, tmp_path / "nowhere")
    assert exit_code == 3
    assert "no such directory" in of_kind(document, "layout")["message"]


def test_a_folder_that_vanishes_while_it_is_looked_at_is_reported(tmp_path, data, monkeypatch):
    from finetune.commands.check import check as story

    real = story.look_at_images

    def vanishing(paths, limits):
        for number, look in enumerate(real(paths, limits)):
            if number == 5:
                shutil.rmtree(data)
            yield look

    monkeypatch.setattr(story, "look_at_images", vanishing)
    exit_code, document = check(tmp_path, data)
    assert exit_code == 3
    assert document["plan"] is None
    assert {finding["kind"] for finding in document["findings"]} >= {"unreadable", "untried"}


def test_a_stage_that_does_not_fit_into_memory_must_be_fixed(tmp_path, data, monkeypatch):
    from finetune.commands.check import check as story

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(story, "measure_stage_costs", full)
    exit_code, document = check(tmp_path, data)
    assert exit_code == 3
    assert "stage frozen does not fit: Out of memory" in of_kind(document, "memory")["message"]


def test_a_stage_takes_all_its_steps_and_its_validation(images, tmp_path):
    config = load_config(write_small_config(tmp_path, images), ["data.batch_size=4"])
    experiment = prepare(config, Display(io.StringIO()))
    cost = measure_stage_costs(experiment, 1, stage_cost_loaders(experiment).of_stage(1))
    assert cost.steps == 2 * (30 // 4)
    assert cost.seconds > cost.steps * cost.seconds_per_step > 0


def test_averaging_the_weights_is_part_of_a_step(images, tmp_path, monkeypatch):
    """It is tried before the validation, which takes the memory of the weights once more."""
    update, seconds = WeightAverage.update, 0.2

    def slow(self, step):
        time.sleep(seconds)
        update(self, step)

    monkeypatch.setattr(WeightAverage, "update", slow)
    config = load_config(write_small_config(tmp_path, images), ["data.batch_size=4", "ema=0.9"])
    experiment = prepare(config, Display(io.StringIO()))
    validated = []
    monkeypatch.setattr(WeightAverage, "put_into_model", lambda self: validated.append(self))
    cost = measure_stage_costs(experiment, 1, stage_cost_loaders(experiment).of_stage(1))
    assert cost.seconds_per_step > seconds
    assert len(validated) == 1


def test_strict_says_why_it_fails(tmp_path, data):
    config = write_small_config(tmp_path, data)
    (data / "cat" / "loop").symlink_to(data)
    assert "1 warning: nothing has to be fixed" in run_finetune("check", config).stdout
    result = run_finetune("check", config, "--strict")
    assert (result.exit_code, "1 warning: to be fixed, as --strict says" in result.stdout) == (3, True)


def test_levels_are_shown_gravest_last():
    assert check_report.LEVELS == ("error", "warning", "note")


# Ended from outside


PROGRAM = """
import sys
from finetune.commands.check import check
from finetune.cli import main
from finetune.data.images import parallel

parallel._PATIENCE = parallel._WORTH_PROCESSES = 0
parallel.usable_cores = lambda: 2
built = check.build_experiment
check.build_experiment = lambda *given, **more: print("ready", flush=True) or built(*given, **more)
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_word_no_traceback_and_no_process_left(tmp_path, data, how):
    noise(1, (1500, 2000)).save(data / "cat" / "big.png")
    for number in range(400):
        os.link(data / "cat" / "big.png", data / "cat" / f"more{number}.png")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, tmp_path / "program.py", "check", write_small_config(tmp_path, data)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline().startswith("check ")
    assert process.stdout.readline() == "ready\n"
    time.sleep(2)
    os.killpg(process.pid, how)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    deadline = time.monotonic() + 60
    while _group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _group_lives(process.pid)


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
