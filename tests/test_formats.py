"""Every ending that Pillow opens is read, by what the file holds and not by trying all that Pillow knows."""

import sys
from contextlib import suppress

import pytest
from conftest import draw_images, index_images
from PIL import Image, features

from finetune.choices import IMAGE_ENDINGS, SUFFIXES
from finetune.data.images import ImageError, ImageLimits, inspect_image, read_image
from finetune.data.images.formats import formats_of, register_heif

NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "IPTC", "MPEG"}  # as `IMAGE_ENDINGS` says

pytestmark = pytest.mark.filterwarnings("ignore:.*image format is deprecated")  # Pillow is to drop IM


def picture():
    image = Image.new("RGB", (32, 24), (200, 30, 30))
    image.paste((30, 30, 200), (16, 0, 32, 24))
    return image


def test_the_list_of_endings_is_that_of_pillow():
    Image.init()
    opened = {}
    for ending, name in Image.registered_extensions().items():
        name = {"MPO": "JPEG"}.get(name, name)
        if name in Image.OPEN and name not in NOT_READ:
            opened.setdefault(name, set()).add(ending)
    register_heif()
    opened["HEIF"] = {e for e, name in Image.registered_extensions().items() if name == "HEIF"}
    listed = {name: set(endings) for name, endings in IMAGE_ENDINGS.items() if name in Image.OPEN}
    assert listed == opened


@pytest.mark.parametrize("ending", SUFFIXES)
def test_a_file_in_each_format_is_read_by_its_ending(tmp_path, ending):
    name = next(name for name, endings in IMAGE_ENDINGS.items() if ending in endings)
    Image.init()
    register_heif()
    if name not in Image.SAVE:
        pytest.skip("Pillow reads it and does not write it")
    modes = {"MSP": "1", "XBM": "1", "IM": "RGB", "PPM": "RGB"}
    image = picture().convert(modes.get(name, "RGB"))
    path = tmp_path / f"x{ending.upper()}"
    try:
        image.save(path, name)
    except (OSError, ValueError):
        pytest.skip(f"this Pillow does not write {name}")
    assert inspect_image(path, ImageLimits()).width
    assert read_image(path, ImageLimits()).mode == "RGB"


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".avif", ".heic"])
def test_class_folders_of_such_files_are_read(tmp_path, ending):
    register_heif()
    for path in draw_images(tmp_path, classes=("a", "b"), each=3).rglob("*.png"):
        name = {".avif": "AVIF", ".heic": "HEIF"}.get(ending, "JPEG")
        Image.open(path).save(path.with_suffix(ending), name)
        path.unlink()
    index = index_images(tmp_path, seed=1)
    assert len(index.samples) == 6
    assert inspect_image(tmp_path / index.samples[0].name, ImageLimits()).width == 48


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
def test_files_under_the_ending_of_another_format_are_read(tmp_path, name):
    register_heif()
    picture().save(tmp_path / "x.jpg", name)
    assert read_image(tmp_path / "x.jpg", ImageLimits()).size == (32, 24)


def test_heic_names_the_package_that_reads_it(tmp_path, monkeypatch):
    register_heif()
    picture().save(tmp_path / "x.heic", "HEIF")
    register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"HEIC, which pillow-heif reads \(pip install .*heif"):
        inspect_image(tmp_path / "x.heic", ImageLimits())


def test_a_format_that_takes_any_bytes_is_tried_for_its_own_ending_alone():
    assert "TGA" in formats_of("x.tga", b"")
    assert "TGA" not in formats_of("x.png", b"")
    assert not NOT_READ & set(IMAGE_ENDINGS)


@pytest.mark.parametrize("ending", [e for e in SUFFIXES if e not in (".jpg", ".png")])
@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"\xff" * 3000, bytes(range(256)) * 8, b"hello"])
def test_nonsense_under_any_ending_is_a_bad_image_and_no_traceback(tmp_path, ending, content):
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    with suppress(ImageError):
        inspect_image(path, ImageLimits())
