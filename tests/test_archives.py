"""Archives are read in place: the same images, splits and bits as unpacked; nothing leaves them."""

import io
import json
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import draw_images, index_images, run_finetune, some_quick, write_small_config
from PIL import Image

from finetune.data.data_layout import LeftOut
from finetune.data.image_files import (
    each_entry,
    file_exists,
    file_status,
    is_archive,
    is_folder,
    is_other_than_folder,
    list_entries,
    open_file,
    sizes_and_times,
)
from finetune.data.images import ImageError, ImageLimits, inspect_image
from finetune.data.indexing.find_images import holds_images, is_image_name
from finetune.data.quality.scan import check_images
from finetune.errors import DataError

KINDS = ("stored.zip", "deflated.zip", "plain.tar")
IN_TRAININGS = some_quick(KINDS, "deflated.zip")


def pack(folder, archive, top=""):
    """Pack a folder into an archive, below `top` in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: f"{top}{path.relative_to(folder).as_posix()}" for path in files}
    if archive.suffix == ".tar":
        with tarfile.open(archive, "w") as tar:
            for path, name in names.items():
                tar.add(path, name)
        return archive
    method = zipfile.ZIP_DEFLATED if "deflated" in archive.name else zipfile.ZIP_STORED
    with zipfile.ZipFile(archive, "w", method) as packed:
        for path, name in names.items():
            packed.write(path, name)
    return archive


@pytest.fixture(params=IN_TRAININGS)
def packed(request, tmp_path):
    """Return a folder of class folders, and the same in an archive."""
    folder = draw_images(tmp_path / "photos")
    return folder, pack(folder, tmp_path / request.param, top="photos/")


def test_the_same_images_are_found_as_in_the_folder(packed):
    folder, archive = packed
    unpacked, index = index_images(folder, seed=1), index_images(archive, seed=1)
    assert index.root == archive / "photos"
    assert (index.samples, index.class_names) == (unpacked.samples, unpacked.class_names)
    assert index.layout == unpacked.layout
    assert len(check_images(index, ImageLimits()).samples) == 36


def test_members_are_files_like_others(packed):
    folder, archive = packed
    for name in ("cat/cat00.png", "owl/owl11.png"):
        member = archive / "photos" / name
        assert open_file(member).read() == (folder / name).read_bytes()
        assert file_status(member).size == (folder / name).stat().st_size
        assert file_status(member).modified == archive.stat().st_mtime_ns
        assert file_exists(member)
        assert not is_folder(member)
        asked = sizes_and_times(str(archive.parent), [f"{archive.name}/photos/{name}", "photos.none"])
        assert asked == [(file_status(member).size, archive.stat().st_mtime_ns), None]
        status = (folder / name).stat()
        assert sizes_and_times(str(folder), [name, "none"]) == [(status.st_size, status.st_mtime_ns), None]
    assert is_archive(archive)
    assert is_folder(archive / "photos/cat")
    assert [entry.name for entry in list_entries(archive)] == ["photos"]
    assert not file_exists(archive / "photos/cat/none.png")
    with pytest.raises(FileNotFoundError):
        open_file(archive / "photos/cat/none.png")
    with pytest.raises(IsADirectoryError):
        open_file(archive / "photos/cat")


def run(tmp_path, data, name, *overrides):
    config = write_small_config(tmp_path, data)
    result = run_finetune("train", config, *overrides, "--run-dir", tmp_path / name)
    assert result.exit_code == 0, result.stdout + result.stderr
    return tmp_path / name


def test_a_training_is_that_of_the_folder_to_the_last_bit(packed, tmp_path):
    folder, archive = packed
    first = run(tmp_path, folder, "first")
    before = sorted(path for path in tmp_path.rglob("*") if "first" not in path.parts)
    second = run(tmp_path, archive, "second", "data.workers=2")
    after = sorted(path for path in tmp_path.rglob("*") if not {"first", "second"} & set(path.parts))
    assert before == after  # nothing was unpacked
    for name in ("model.safetensors", "split.csv", "history.csv"):
        parts = [(at / name).read_bytes() for at in (first, second)]
        assert parts[0] == parts[1] if name != "history.csv" else parts
    assert json.loads((second / "started.json").read_text())["layout"]["kind"] == "class folders"
    report = [json.loads((at / "report.json").read_text())["val"] for at in (first, second)]
    assert report[0] == report[1]


def test_every_command_reads_it(packed, tmp_path):
    folder, archive = packed
    trained = run(tmp_path, archive, "run")
    written = run_finetune("init", archive, "--output", tmp_path / "new.yaml")
    assert "36 images of 3 classes" in written.stdout
    checked = run_finetune("check", write_small_config(tmp_path, archive), "--json")
    assert (checked.exit_code, json.loads(checked.stdout)["images"]) == (0, 36)
    for data in ([], [archive], [folder]):
        scored = run_finetune("evaluate", trained, *data, "--json")
        assert scored.exit_code == 0, scored.stderr
    some = [archive, archive / "photos/cat", archive / "photos/cat/cat00.png"]
    numbers = []
    for path in some:
        answered = run_finetune("predict", trained, path, "--json")
        assert answered.exit_code == 0, answered.stderr
        numbers.append(len(json.loads(answered.stdout)))
    assert numbers == [36, 12, 1]


def test_a_run_is_resumed_from_an_archive_and_an_altered_one_is_noticed(tmp_path):
    folder = draw_images(tmp_path / "photos")
    archive = pack(folder, tmp_path / "photos.zip")
    trained = run(tmp_path, archive, "run")
    config = write_small_config(tmp_path, archive)
    assert run_finetune("train", config, "--run-dir", trained, "--resume").exit_code == 0
    Image.new("RGB", (9, 9), "red").save(folder / "cat" / "cat00.png")
    pack(folder, archive)
    longer = ["stages.unfrozen.epochs=3", "--run-dir", trained, "--resume"]
    (trained / "status.json").write_text('{"state": "running"}')
    result = run_finetune("train", config, *longer[1:])
    assert "images altered: 1, cat/cat00.png" in result.stderr


def test_a_table_may_name_images_in_an_archive(tmp_path):
    folder = draw_images(tmp_path / "photos", classes=("a", "b"), each=3)
    archive = pack(folder, tmp_path / "images.zip")
    rows = "".join(f"{name}/{name}{n:02}.png,{name}\n" for name in "ab" for n in range(3))
    (tmp_path / "labels.csv").write_text(f"image,label\n{rows}")
    shutil.rmtree(folder)
    index = index_images(tmp_path / "labels.csv", image_folder=str(archive), seed=1)
    assert len(check_images(index, ImageLimits()).samples) == 6


def test_an_archive_of_split_folders_is_read_as_one(tmp_path):
    for split, each in (("seg_train", 4), ("seg_val", 2)):
        draw_images(tmp_path / "all" / split, classes=("a", "b"), each=each)
    index = index_images(pack(tmp_path / "all", tmp_path / "all.zip", top="x/y/"), seed=1)
    assert index.layout.splits == {"train": ("seg_train",), "val": ("seg_val",)}
    assert index.count("val") == 4


def test_a_folder_named_like_an_archive_is_a_folder(tmp_path):
    index = index_images(draw_images(tmp_path / "photos.zip", classes=("a", "b")), seed=1)
    assert len(index.samples) == 24
    assert inspect_image(tmp_path / "photos.zip" / index.samples[0].name, ImageLimits()).width == 48


# What archives hold that is none of theirs


def content():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(buffer, "PNG")
    return buffer.getvalue()


GOOD = [f"{name}/{n}.png" for name in "ab" for n in range(2)]
OUTSIDE = ["../out.png", "a/../../out.png", "/tmp/out.png", "C:/out.png", "..\\out.png"]


def test_members_of_a_zip_cannot_leave_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in [*GOOD, *OUTSIDE]:
            archive.writestr(name, content())
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    index = index_images(tmp_path / "x.zip", seed=1)
    assert [sample.name for sample in index.samples] == GOOD
    left_out = {one.what: one.why for one in index.layout.left_out}
    assert left_out == {
        **{f"member {name}": "its path leads out of the archive" for name in OUTSIDE},
        "member a/link.png": "it is a link",
    }
    assert any(line.startswith("member ../out.png of ") for line in index.warnings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.zip"]


def test_members_of_a_tar_cannot_leave_it(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in [*GOOD, *OUTSIDE[:3]]:
            info = tarfile.TarInfo(name)
            info.size = len(content())
            archive.addfile(info, io.BytesIO(content()))
        for name, kind in (("a/soft.png", tarfile.SYMTYPE), ("b/hard.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../../etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("a/pipe.png")
        info.type = tarfile.FIFOTYPE
        archive.addfile(info)
    index = index_images(tmp_path / "x.tar", seed=1)
    assert [sample.name for sample in index.samples] == GOOD
    assert LeftOut("member a/soft.png", "it is a link", 1) in index.layout.left_out
    assert LeftOut("member b/hard.png", "it is a link", 1) in index.layout.left_out
    assert LeftOut("member a/pipe.png", "it is no plain file", 1) in index.layout.left_out
    assert len(index.layout.left_out) == 6


def test_back_slashes_of_other_systems_are_slashes(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in GOOD:
            archive.writestr("top\\" + name.replace("/", "\\"), content())
    assert [sample.name for sample in index_images(tmp_path / "x.zip", seed=1).samples] == GOOD


def test_files_in_several_archives_and_beside_them_are_asked_about_at_once(tmp_path):
    folder = draw_images(tmp_path / "photos")
    first, second = (pack(folder, tmp_path / name, top="photos/") for name in ("1.zip", "2.tar"))
    inner = [f"photos/{one.relative_to(folder)}" for one in sorted(folder.rglob("*.png"))[:3]]
    names = [f"{archive.name}/{name}" for archive in (first, second, first) for name in (*inner, "none.png")]
    names += [
        f"{folder.relative_to(tmp_path)}/{inner[0].removeprefix('photos/')}",
        "1.zip.png/x.png",
        *names[:1],
    ]

    def alone(name):
        try:
            return file_status(tmp_path / name)[:2]
        except OSError:
            return None

    assert sizes_and_times(str(tmp_path), names) == [alone(name) for name in names]
    assert None in map(alone, names)


@pytest.mark.parametrize("name", ['"quo\'ted"', "new\nline", "\u202eright", "\U0001f41d", "a;rm -rf", "{x}"])
def test_odd_names_are_names(tmp_path, name):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for label in (name, "plain"):
            for n in range(2):
                info = tarfile.TarInfo(f"{label}/{n}.png")
                info.size = len(content())
                archive.addfile(info, io.BytesIO(content()))
    index = index_images(tmp_path / "x.tar", seed=1)
    assert set(index.class_names) == {name, "plain"}
    assert len(check_images(index, ImageLimits()).samples) == 4


def test_a_bomb_is_a_bad_image(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/bomb.png", bytes(300 << 20))
    with pytest.raises(ImageError, match="314,572,800 bytes; no more than 268,435,456 are read"):
        inspect_image(tmp_path / "x.zip" / "a/bomb.png", ImageLimits())


def test_a_bomb_that_claims_to_be_small_is_unpacked_no_further(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/bomb.png", bytes(50 << 20))
    raw = bytearray((tmp_path / "x.zip").read_bytes())
    directory = raw.rindex(b"PK\x01\x02")
    raw[directory + 24 : directory + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(raw)
    with pytest.raises(ImageError, match="damaged in its archive"):
        inspect_image(tmp_path / "x.zip" / "a/bomb.png", ImageLimits())


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_members_are_bad_images(tmp_path, kind):
    archive = pack(draw_images(tmp_path / "photos", classes=("a", "b"), each=2), tmp_path / kind)
    raw = bytearray(archive.read_bytes())
    place = raw.index(b"a/a00.png") + (700 if kind.endswith("tar") else 60)
    raw[place : place + 40] = bytes(40)
    archive.write_bytes(raw)
    with pytest.raises(ImageError):
        inspect_image(archive / "a/a00.png", ImageLimits())
    assert inspect_image(archive / "b/b00.png", ImageLimits()).width == 48


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("start", [b"", b"hello" * 300, b"PK\x03\x04" + bytes(600)])
def test_what_is_no_archive_is_refused(tmp_path, suffix, start):
    (tmp_path / f"x{suffix}").write_bytes(start)
    with pytest.raises(DataError, match=r"is no (ZIP|TAR) archive that can be read|no images in"):
        index_images(tmp_path / f"x{suffix}", seed=1)


def test_a_tar_with_a_damaged_header_loses_no_image_in_silence(tmp_path):
    archive = pack(draw_images(tmp_path / "photos", classes=("a", "b"), each=2), tmp_path / "x.tar")
    raw = bytearray(archive.read_bytes())
    place = raw.index(b"b/b00.png")
    raw[place : place + 100] = b"?" * 100
    archive.write_bytes(raw)
    with pytest.raises(DataError, match=r"x.tar is no TAR archive that can be read: bad checksum"):
        index_images(archive, seed=1)


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("x.tar.gz", "w:gz", r"is compressed by gzip: .*\nUnpack it \(mkdir x && tar -xf x.tar.gz -C x\)"),
        ("x.tgz", "w:gz", "is compressed by gzip"),
        ("x.tar", "w:bz2", "is compressed by bzip2"),
        ("x.tar.xz", "w:xz", "is compressed by xz"),
    ],
)
def test_a_compressed_tar_says_how_to_unpack_it(tmp_path, name, mode, message):
    with tarfile.open(tmp_path / name, mode) as archive:
        info = tarfile.TarInfo("a/1.png")
        info.size = len(content())
        archive.addfile(info, io.BytesIO(content()))
    with pytest.raises(DataError, match=message):
        index_images(tmp_path / name, seed=1)
    result = run_finetune("init", tmp_path / name)
    assert (result.exit_code, "Unpack it" in result.stderr) == (3, True)


def test_an_encrypted_zip_says_how_to_unpack_it(tmp_path):
    archive = pack(draw_images(tmp_path / "photos", classes=("a", "b"), each=2), tmp_path / "x.zip")
    raw = bytearray(archive.read_bytes())
    for place in (raw.index(b"PK\x01\x02") + 8, raw.index(b"PK\x03\x04") + 6):
        raw[place] |= 1
    archive.write_bytes(raw)
    with pytest.raises(
        DataError, match=r"is encrypted: .*\nUnpack it \(unzip x.zip -d x\) and set data.path"
    ):
        index_images(archive, seed=1)


def test_other_compression_says_how_to_unpack_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a/1.png", content())
    with pytest.raises(DataError, match=r"is compressed by method 14, not by deflate: .*\nUnpack it"):
        index_images(tmp_path / "x.zip", seed=1)


def test_an_archive_is_read_anew_when_it_has_changed(tmp_path):
    folder = draw_images(tmp_path / "photos", classes=("a", "b"), each=2)
    archive = pack(folder, tmp_path / "x.zip")
    assert len(index_images(archive, seed=1).samples) == 4
    shutil.copy(folder / "a" / "a00.png", folder / "a" / "a99.png")
    pack(folder, archive)
    assert len(index_images(archive, seed=1).samples) == 5


def test_many_refused_members_are_counted(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in [*GOOD, *(f"../{n}.png" for n in range(60))]:
            archive.writestr(name, content())
    index = index_images(tmp_path / "x.zip", seed=1)
    assert index.layout.left_out == (LeftOut("members", "its path leads out of the archive", 60),)
    assert index.warnings[-1] == "… and 52 more of these"


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_in_the_archive_of_its_images_is_read(tmp_path, kind):
    folder = draw_images(tmp_path / "photos" / "images", classes=("x",), each=6).parent
    rows = "".join(f"x{n:02},{'ab'[n % 2]}\n" for n in range(6))
    (folder / "labels.csv").write_text(f"id,breed\n{rows}")
    archive = pack(folder, tmp_path / kind, top="photos/")
    shutil.rmtree(folder)
    index = index_images(archive, seed=1)
    assert index.class_names == ("a", "b")
    assert index.layout.remark == "labels.csv"
    assert len(check_images(index, ImageLimits()).samples) == 6
    assert index_images(archive / "photos" / "labels.csv", seed=1).samples == index.samples


@pytest.mark.parametrize("kind", ["folder", "deflated.zip", "plain.tar"])
def test_json_about_class_folders_is_no_table_of_them(tmp_path, kind):
    folder = draw_images(tmp_path / "all" / "photos", classes=("a", "b"), each=2).parent
    (folder / "dataset.json").write_text('{"licenses": []}')
    if kind == "folder":
        with pytest.raises(DataError, match=r"need at least 2 classes"):
            index_images(folder, seed=1)
    else:
        assert index_images(pack(folder, tmp_path / kind), seed=1).class_names == ("a", "b")


def test_a_file_of_a_name_is_looked_for_in_a_folder_and_in_an_archive_alike(tmp_path):
    (tmp_path / "photos/empty/further").mkdir(parents=True)
    (tmp_path / "photos/a.txt").touch()
    (tmp_path / "photos/folder.png").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/folder.png/1.png")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "photos")
    for root in (tmp_path / "photos", tmp_path / "packed.zip"):
        files = [entry.name for entry in each_entry(root) if not entry.is_folder]
        assert not any(map(is_image_name, files))  # a folder called like one is none
        assert any(is_image_name(entry.name) for entry in each_entry(root / "folder.png"))
        assert files == ["a.txt"]
        assert holds_images(root)
        assert not holds_images(root / "empty")
    with pytest.raises(DataError, match="cannot list"):
        next(each_entry(tmp_path / "nowhere"))


def test_files_and_links_are_told_from_folders_in_an_archive_as_well(tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/1.png").touch()
    (folder / "nowhere").symlink_to("no such file")
    (folder / "round").symlink_to("round")
    (folder / "link").symlink_to("inner")
    found = {name: is_other_than_folder(folder / name) for name in ("inner/1.png", "inner", "gone", "link")}
    assert found == {"inner/1.png": True, "inner": False, "gone": False, "link": False}
    assert is_other_than_folder(folder / "nowhere")
    assert is_other_than_folder(folder / "round")
    assert not is_other_than_folder(folder / "inner/1.png/2.png")
    for link in ("nowhere", "round", "link"):
        (folder / link).unlink()
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    found = {name: is_other_than_folder(packed / name) for name in ("inner/1.png", "inner", "gone")}
    assert found == {"inner/1.png": True, "inner": False, "gone": False}
