import os
import time

import pytest
from conftest import index_images
from PIL import Image

from finetune.data.data_layout import FolderOptions
from finetune.data.images import ImageError, ImageLimits
from finetune.data.index import load_sample
from finetune.data.indexing.build import list_images
from finetune.data.indexing.match_classes import match_classes
from finetune.data.quality.scan import BadImagesError, check_images
from finetune.data.quality.scan_cache import FileFacts
from finetune.errors import ConfigError, DataError

LIMITS = ImageLimits()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Keep the memory of scans out of the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def draw(root, *names):
    """Draw an image at each path below root."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (number * 7 % 256, 90, 90)).save(path)


def classes(root, **counts):
    """Draw folders with so many images each, and give the root."""
    for folder, count in counts.items():
        draw(root, *(f"{folder.replace('__', '/')}/{i:02d}.png" for i in range(count)))
    return root


def splits(index):
    return {split: index.count(split) for split in ("train", "val", "test")}


# Layouts


def test_class_folders_are_split_by_a_stratified_fraction(tmp_path):
    index = index_images(classes(tmp_path, bees=10, ants=20), seed=1)
    assert index.class_names == ("ants", "bees")
    assert index.counts("val") == {"ants": 4, "bees": 2}
    assert index.counts("train") == {"ants": 16, "bees": 8}
    assert [name for name, _, _ in index.rows()] == sorted(
        [f"ants/{i:02d}.png" for i in range(20)] + [f"bees/{i:02d}.png" for i in range(10)]
    )
    assert {(name.split("/")[0], class_name) for name, _, class_name in index.rows()} == {
        ("ants",) * 2,
        ("bees",) * 2,
    }
    assert index.warnings == ()


def test_a_fraction_can_be_chosen(tmp_path):
    assert index_images(classes(tmp_path, a=10, b=10), val=0.5, seed=1).count("val") == 10


def test_the_order_of_the_file_system_does_not_matter(tmp_path):
    names = [f"{c}/{i}.png" for c in "ab" for i in range(9)]
    draw(tmp_path / "one", *names)
    draw(tmp_path / "two", *reversed(names))
    one, two = (index_images(tmp_path / folder, seed=3) for folder in ("one", "two"))
    assert one.samples == two.samples


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_train_and_val_folders_are_the_split(tmp_path, name):
    root = classes(tmp_path, **{"train__a": 3, "train__b": 4, f"{name}__a": 1, f"{name}__b": 2, "test__b": 5})
    index = index_images(root, seed=1)
    assert splits(index) == {"train": 7, "val": 3, "test": 5}
    assert index.class_names == ("a", "b")
    assert {s.name.split("/")[0] for s in index.of_split("val")} == {name}


def test_the_val_folder_can_be_named(tmp_path):
    root = classes(tmp_path, train__a=3, train__b=3, holdout__a=1, holdout__b=1, val__a=1, val__b=1)
    index = index_images(root, val="holdout", seed=1)
    assert {s.name.split("/")[0] for s in index.of_split("val")} == {"holdout"}
    assert any("not used" in line and "'val'" in line for line in index.warnings)


def test_train_without_val_is_split_and_says_so(tmp_path):
    index = index_images(classes(tmp_path, train__a=10, train__b=10, test__a=3), seed=1)
    assert splits(index) == {"train": 16, "val": 4, "test": 3}
    assert any("no folder val: 20% of each class of train is held out" in line for line in index.warnings)


def test_a_class_may_be_called_train(tmp_path):
    index = index_images(classes(tmp_path, train=4, bus=4), seed=1)
    assert index.class_names == ("bus", "train")


def test_folders_inside_a_class_folder_belong_to_the_class(tmp_path):
    draw(tmp_path, "a/1.png", "a/x/2.png", "a/x/y/3.png", "b/1.png", "b/2.png")
    index = index_images(tmp_path, seed=1)
    assert {name: c for name, _, c in index.rows()}["a/x/y/3.png"] == "a"


def test_builtin_digits_need_no_files():
    index = index_images("builtin:digits", seed=1)
    assert index.class_names == tuple("0123456789")
    assert len(index.samples) == 1797
    assert 350 < index.count("val") < 370
    picture = load_sample(index, index.samples[0], LIMITS)
    assert (picture.mode, picture.size) == ("RGB", (8, 8))
    assert check_images(index, LIMITS) is index


def test_builtin_data_sets_that_do_not_exist_are_refused():
    with pytest.raises(
        ConfigError, match="no 'builtin:letters'; built in are builtin:digits and builtin:turned-digits"
    ):
        index_images("builtin:letters", seed=1)
    with pytest.raises(ConfigError, match="has no folder 'val'"):
        index_images("builtin:digits", val="val", seed=1)


def test_images_per_class_limits_training_only(tmp_path):
    root = classes(tmp_path, a=20, b=20)
    everything, few = index_images(root, seed=1), index_images(root, seed=1, images_per_class=3)
    assert few.counts("train") == {"a": 3, "b": 3}
    assert few.of_split("val") == everything.of_split("val")
    assert set(few.samples) <= set(everything.samples)


# What is not an image


def test_other_files_are_ignored_and_counted(tmp_path):
    root = classes(tmp_path, a=2, b=2)
    draw(root, "a/upper.PNG")
    for name in ("a/x.png.bak", "a/x.jpg_large", "a/.hidden.png", "b/Makefile", "b/x.svg", "b/notes.txt"):
        (root / name).touch()
    (root / "a" / "folder.png").mkdir()  # a folder like any other
    draw(root, "a/folder.png/x.png", ".hidden/x.png", "__MACOSX/x.png", "@eaDir/x.png")
    index = index_images(root, seed=1)
    assert index.counts("train")["a"] + index.counts("val")["a"] == 4
    assert index.ignored == {
        ".bak": 1, ".jpg_large": 1, ".svg": 1, ".txt": 1,
        "hidden": 1, "without ending": 1,
    }  # fmt: skip
    assert any(line.startswith("ignored 6 files") and ".bak 1" in line for line in index.warnings)


def test_images_beside_the_class_folders_are_counted(tmp_path):
    draw(classes(tmp_path, a=2, b=2), "stray.png")
    index = index_images(tmp_path, seed=1)
    assert len(index.samples) == 4
    assert any(
        line.startswith("1 image of") and "outside the class folders" in line for line in index.warnings
    )


def test_a_link_to_a_parent_repeats_nothing(tmp_path):
    root = classes(tmp_path, train__a=3, train__b=3, val__a=1, val__b=1)
    (root / "train" / "a" / "loop").symlink_to(root)
    (root / "train" / "c").symlink_to(root / "train" / "a")
    index = index_images(root, seed=1)
    assert splits(index) == {"train": 6, "val": 2, "test": 0}
    assert index.class_names == ("a", "b")
    where = f"in {root} is not followed: it leads"
    assert f"link train/a/loop {where} back to a folder that it is in" in index.warnings
    assert f"link train/c {where} to train/a, which is read there" in index.warnings


def test_links_to_folders_are_followed(tmp_path):
    root, other = classes(tmp_path / "root", a=2, b=2), classes(tmp_path / "other", c=2, d__e=3)
    (root / "c").symlink_to(other / "c")
    (root / "d").symlink_to("../other/d")
    index = index_images(root, seed=1)
    assert index.class_names == ("a", "b", "c", "d")
    assert [s.name for s in index.samples if s.name.startswith("d")] == [f"d/e/{n:02}.png" for n in range(3)]


def test_a_folder_that_two_links_lead_to_counts_once(tmp_path):
    root, other = classes(tmp_path / "root", a=2, b=2), classes(tmp_path / "other", c=2)
    for link in ("y", "x"):
        (root / link).symlink_to(other / "c")
    index = index_images(root, seed=1)
    assert index.class_names == ("a", "b", "x")
    assert [one.what for one in index.layout.left_out] == ["link y"]


def test_links_between_splits_move_no_image_from_one_to_the_other(tmp_path):
    root = classes(tmp_path, train__a=3, train__b=3, val__a=1, val__b=1)
    (root / "train" / "a" / "more").symlink_to(root / "val" / "a")
    assert splits(index_images(root, seed=1)) == {"train": 6, "val": 2, "test": 0}


def test_a_link_above_the_data_reads_none_of_it_twice(tmp_path):
    root = classes(tmp_path / "all" / "root", a=2, b=2)
    classes(tmp_path / "all" / "more", x=3)
    (tmp_path / "way").symlink_to(tmp_path / "all")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "inner").symlink_to(tmp_path / "way")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    index = index_images(root, seed=1)
    assert {s.name.split("/")[0] for s in index.samples} == {"a", "b"} or len(index.samples) == 7
    assert len({(root / s.name).resolve() for s in index.samples}) == len(index.samples)


def test_links_to_files_are_followed(tmp_path):
    root = classes(tmp_path / "root", a=2, b=2)
    draw(tmp_path, "elsewhere.png")
    (root / "a" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    index = check_images(index_images(root, seed=1), LIMITS)
    assert len(index.samples) == 5


# Classes and splits that do not fit


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no images in .* \\(looked for .bmp .*.png"),
        ({"only": 3}, "need at least 2 classes; .* has 1: 'only' \\(3 images\\)"),
        ({"a": 1, "b": 5}, "too few images .* in 'a' \\(1 image\\); a class needs at least 2"),
        ({"train__a": 2, "train__b": 2, "val__c": 2}, "val has classes that .*train has not: 'c' \\(2"),
        ({"train__a": 2, "train__b": 2, "val__a": 1, "test__c": 2}, "test has classes that .* not: 'c'"),
        ({"train__a": 2, "train__b": 2, "val__a": 1, "valid__a": 1}, "two folders of validation images"),
        ({"folder__a": 2, "folder__b": 2}, "has 1: 'folder' \\(4 images\\). Did you mean .*folder\\?"),
        ({"x__y__a": 2, "x__y__b": 2}, "has 1: 'x' \\(4 images\\). Did you mean .*x/y\\?"),
        ({"Ants": 2, "ants": 2}, "'Ants' and 'ants' differ only in case; .*data.case_variants: allow"),
        ({"cafe\u0301": 2, "caf\xe9": 2}, "\\(U\\+0301\\) and .*\\(U\\+00E9\\) are the same text"),
        ({"ants ": 2, "bees": 2}, "class folder 'ants ' begins or ends with a blank"),
        ({os.fsdecode(b"a\xff"): 2, "b": 2}, r"class folder 'a\\\\udcff' is not UTF-8"),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_trained_on_are_refused(tmp_path, counts, message):
    with pytest.raises(DataError, match=message):
        index_images(classes(tmp_path, **counts), seed=1)


def test_variants_are_found_across_train_and_val(tmp_path):
    root = classes(tmp_path, train__ants=2, train__bees=2, val__Ants=1)
    with pytest.raises(DataError, match="differ only in case"):
        index_images(root, seed=1)


def test_case_variants_can_be_two_classes(tmp_path):
    root = classes(tmp_path, **{"a": 2, "A": 2})
    assert index_images(root, seed=1, case_variants="allow").class_names == ("A", "a")


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path):
    with pytest.raises(DataError, match=r"no such directory: .*nowhere\."):
        index_images(tmp_path / "nowhere", seed=1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is not a folder"):
        index_images(tmp_path / "file", seed=1)


def test_images_without_class_folders_are_refused(tmp_path):
    draw(tmp_path, "1.png", "2.png", "3.png", "4.png")
    with pytest.raises(DataError, match=r"no class folders in .*: 4 images lie directly in it") as refusal:
        index_images(tmp_path, seed=1)
    first, second = str(refusal.value).splitlines()
    assert first.endswith("put the images of each class into a folder of its own.")
    assert second == (
        "For instance cat/1.png; or a table, data.path: labels.csv with a line file,label and then "
        "1.png,cat; or names such as cat_1.jpg and data.label_pattern: '^([^_]+)_'."
    )
    (tmp_path / "labels.csv").write_text("file,label\n1.png,cat\n2.png,dog\n3.png,cat\n4.png,dog\n")
    assert index_images(tmp_path / "labels.csv", seed=1, val=0.5).class_names == ("cat", "dog")


def test_images_whose_names_say_classes_beside_a_folder_of_lists_are_refused_with_what_reads_them(tmp_path):
    names = [f"{name}_{number}.jpg" for name in ("Abyssinian", "boxer") for number in range(6)]
    draw(tmp_path / "images", *names)
    (tmp_path / "annotations").mkdir()
    lines = [f"{name[:-4]} {1 + (name[0] == 'b')} 1 1\n" for name in names]
    for file, part in (("trainval.txt", lines[::2]), ("test.txt", lines[1::2])):
        (tmp_path / "annotations" / file).write_text("".join(part))
    with pytest.raises(DataError) as refusal:
        index_images(tmp_path, seed=1)
    pattern = r"^(.+)_\d+\."
    assert f"Did you mean {tmp_path / 'images'} with data.label_pattern: '{pattern}'?" in str(refusal.value)
    found = list_images(tmp_path / "images", folders=FolderOptions(label_pattern=pattern))
    assert found.class_names == ("Abyssinian", "boxer")


@pytest.mark.parametrize("folder", ["train", "val"])
def test_an_empty_part_is_refused(tmp_path, folder):
    other = {"train": "val", "val": "train"}[folder]
    (classes(tmp_path, **{f"{other}__a": 2, f"{other}__b": 2}) / folder).mkdir()
    with pytest.raises(DataError, match=f"no images in .*{folder}"):
        index_images(tmp_path, seed=1)


def test_an_empty_class_folder_is_refused(tmp_path):
    (classes(tmp_path, a=2, b=2) / "c").mkdir()
    with pytest.raises(DataError, match=r"class folders of .* without an image: 'c'"):
        index_images(tmp_path, seed=1)


def test_a_fraction_beside_a_val_folder_is_refused(tmp_path):
    root = classes(tmp_path, train__a=2, train__b=2, val__a=1)
    with pytest.raises(DataError, match=r"data.val is 0.2, but .* holds a folder val; drop data.val"):
        index_images(root, val=0.2, seed=1)


def test_a_val_folder_that_is_not_there_is_refused(tmp_path):
    root = classes(tmp_path, train__a=2, train__b=2)
    with pytest.raises(DataError, match=r"no folder 'later' in .*; there is 'train'"):
        index_images(root, val="later", seed=1)
    with pytest.raises(DataError, match="'a' needs a folder 'train' beside it"):
        index_images(root / "train", val="a", seed=1)


def test_a_class_without_validation_images_is_a_warning(tmp_path):
    index = index_images(classes(tmp_path, train__a=2, train__b=3, val__a=1), seed=1)
    assert index.warnings == (
        f"classes of {tmp_path}/train without an image in {tmp_path}/val: 'b' (3 images)",
    )


# Another folder


def test_another_folder_is_matched_by_class_name(tmp_path):
    root = classes(tmp_path, bees=2, wasps=3, ants=1)
    folder = match_classes(root, ["ants", "bees", "flies"])
    assert folder.index.counts("test") == {"ants": 1, "bees": 2, "flies": 0}
    assert folder.unknown == {"wasps": 3}
    assert folder.missing == ("flies",)


def test_of_another_folder_with_splits_in_it_one_is_scored(tmp_path):
    root = classes(tmp_path, Training__a=1, VAL__a=2, VAL__b=1)
    names = {split: match_classes(root, ["a", "b"], split=split).index for split in ("train", "val")}
    assert [sample.name for sample in names["train"].samples] == ["Training/a/00.png"]
    assert names["val"].counts("test") == {"a": 2, "b": 1}
    with pytest.raises(DataError, match=r"holds 'Training', 'VAL' and none of test images\.\nName one of"):
        match_classes(root, ["a", "b"], split="test")


def test_another_folder_without_a_known_class_is_refused(tmp_path):
    with pytest.raises(DataError, match="the folders there are 'c', the model knows 'a', 'b'"):
        match_classes(classes(tmp_path, c=1), ["a", "b"])


# The scan


@pytest.fixture
def spoiled(tmp_path):
    """Two classes of 30 images, of which three are bad in three ways."""
    root = classes(tmp_path, a=30, b=30)
    (root / "a" / "00.png").write_bytes(b"<html></html>\n")
    (root / "a" / "01.png").write_bytes((root / "a" / "02.png").read_bytes()[:-30])
    (root / "b" / "00.png").unlink()
    os.mkfifo(root / "b" / "00.png")
    return index_images(root, seed=1)


def test_good_images_pass_the_scan(tmp_path):
    index = index_images(classes(tmp_path, a=3, b=3), seed=1)
    seen = []
    assert check_images(index, LIMITS, progress=lambda done, total: seen.append((done, total))) == index
    assert seen == [(i, 6) for i in range(1, 7)]


def test_the_scan_lists_bad_images_with_reasons(spoiled):
    with pytest.raises(BadImagesError, match=r"3 images of 60 in .* cannot be read") as caught:
        check_images(spoiled, LIMITS)
    assert caught.value.bad == (
        ("a/00.png", "looks like HTML, 14 bytes"),
        ("a/01.png", "truncated PNG"),
        ("b/00.png", "not a regular file"),
    )
    for name, reason in caught.value.bad:
        assert f"  {name}: {reason}\n" in str(caught.value)
    assert "data.on_bad_image: skip" in str(caught.value)
    assert caught.value.exit_code == 3


def test_the_list_of_bad_images_ends_after_twenty(tmp_path):
    root = classes(tmp_path, a=30, b=2)
    for path in (root / "a").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadImagesError, match="and 10 more") as caught:
        check_images(index_images(root, seed=1), LIMITS)
    assert str(caught.value).count("empty file") == 20
    assert len(caught.value.bad) == 30


def test_bad_images_are_skipped_if_they_are_few(spoiled):
    index = check_images(spoiled, LIMITS, on_bad="skip", max_bad_fraction=0.05)
    assert [bad.name for bad in index.bad] == ["a/00.png", "a/01.png", "b/00.png"]
    assert {s.name for s in spoiled.samples} - {s.name for s in index.samples} == {
        bad.name for bad in index.bad
    }
    assert set(index.samples) < set(spoiled.samples)
    assert index.warnings[-1] == "skipped 3 of 60 images that cannot be read: a 2, b 1"


def test_too_many_bad_images_stop_after_all(spoiled):
    with pytest.raises(
        BadImagesError, match=r"That is 5.00% of all images, more than data.max_bad_fraction allows"
    ):
        check_images(spoiled, LIMITS, on_bad="skip", max_bad_fraction=0.049)


def test_skipping_does_not_empty_a_class(tmp_path):
    root = classes(tmp_path, a=2, b=30)
    index = index_images(root, seed=1)
    lost = next(s for s in index.of_split("val") if s.target == 0)
    (root / lost.name).write_bytes(b"")
    with pytest.raises(DataError, match="No val image of class 'a' can be read"):
        check_images(index, LIMITS, on_bad="skip", max_bad_fraction=0.5)


def test_broken_links_are_bad_images(tmp_path):
    root = classes(tmp_path, a=2, b=2)
    (root / "a" / "gone.png").symlink_to("nowhere")
    (root / "a" / "loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(BadImagesError, match="2 images of 6"):
        check_images(index_images(root, seed=1), LIMITS)


def test_names_in_messages_are_harmless_on_a_terminal(tmp_path):
    root = classes(tmp_path, a=2, b=2)
    (root / "a" / "\x1b[2J\n.png").touch()
    (root / "a" / os.fsdecode(b"\xff.png")).touch()
    with pytest.raises(BadImagesError) as caught:
        check_images(index_images(root, seed=1), LIMITS)
    assert "  a/\\x1b[2J\\n.png: empty file\n" in str(caught.value)
    assert "  a/\\udcff.png: empty file\n" in str(caught.value)
    assert "a/\x1b[2J\n.png" in [bad.name for bad in caught.value.bad]
    str(caught.value).encode("utf-8")


def test_odd_images_are_pointed_out_once_with_a_count(tmp_path):
    root = classes(tmp_path, a=2, b=2)
    for name in ("a/anim1.gif", "a/anim2.gif"):
        Image.new("L", (9, 9)).save(root / name, save_all=True, append_images=[Image.new("L", (9, 9), 200)])
    Image.new("L", (7, 20)).save(root / "b" / "small.png")
    Image.new("L", (10, 201)).save(root / "b" / "slim.png")
    index = check_images(index_images(root, seed=1), LIMITS)
    assert index.warnings == (
        "images that are animated or have several pages; the first image is used: 2, first a/anim1.gif",
        "images that are less than 8 pixels wide or high: 1, first b/small.png",
        "images that are more than 20 times as long as wide: 1, first b/slim.png",
    )


def touch_later(path, content):
    path.write_bytes(content)
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1_000_000_000))


def test_the_scan_remembers_good_images_until_they_change(tmp_path, cache):
    root = classes(tmp_path, a=2, b=2)
    index = index_images(root, seed=1)
    check_images(index, LIMITS)
    path = root / "a" / "00.png"
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    check_images(index, LIMITS)  # the same size and time: not read again
    touch_later(path, bytes(len(content)))
    with pytest.raises(BadImagesError, match="only zeros"):
        check_images(index, LIMITS)
    touch_later(path, content)
    check_images(index, LIMITS)


def test_bad_images_are_not_remembered(spoiled):
    for _ in range(2):
        with pytest.raises(BadImagesError, match="3 images"):
            check_images(spoiled, LIMITS)


def test_other_limits_are_another_scan(tmp_path):
    index = index_images(classes(tmp_path, a=2, b=2), seed=1)
    check_images(index, LIMITS)
    with pytest.raises(BadImagesError, match="4 images"):
        check_images(index, ImageLimits(max_pixels=100))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", bytes(8), b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_memory_of_scans_is_passed_over(tmp_path, cache, content):
    index = index_images(classes(tmp_path, a=2, b=2), seed=1)
    check_images(index, LIMITS)
    (file,) = (cache / "finetune" / "scans").iterdir()
    file.write_bytes(content)
    assert check_images(index, LIMITS) == index
    assert len(FileFacts.unpacked(file.read_bytes()).names) == 4


def test_a_cache_folder_that_cannot_be_written_is_passed_over(tmp_path, cache):
    (cache / "finetune").write_text("a file where the folder should be")
    index = index_images(classes(tmp_path, a=2, b=2), seed=1)
    assert check_images(index, LIMITS) == index


def test_a_scan_can_be_interrupted(tmp_path):
    index = index_images(classes(tmp_path, a=50, b=50), seed=1)

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_images(index, LIMITS, progress=interrupt)
    assert check_images(index, LIMITS) == index


def test_a_sample_that_has_gone_is_an_image_error(tmp_path):
    index = index_images(classes(tmp_path, a=2, b=2), seed=1)
    (tmp_path / index.samples[0].name).unlink()
    with pytest.raises(ImageError, match="no such file"):
        load_sample(index, index.samples[0], LIMITS)
