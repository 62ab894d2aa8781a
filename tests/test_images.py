import io
import os
import pickle
import random
import re
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from finetune.data.images import (
    ImageError,
    ImageInfo,
    ImageLimits,
    inspect_image,
    look_at_images,
    parse_colour,
    read_image,
)
from finetune.data.images.jpeg_scans import count_scans
from finetune.errors import DataError

LIMITS = ImageLimits()


def picture(width=40, height=20):
    """Draw a smooth picture whose four corners differ."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack([255 * x // width, 255 * y // height, 128 + 0 * x], axis=-1).astype(np.uint8), "RGB"
    )


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(path, **options):
    return np.asarray(read_image(path, LIMITS, **options)).astype(int)


def reason(path, limits=LIMITS):
    """Return the reason against a file, which reading and scanning must agree on."""
    with pytest.raises(ImageError) as scanned:
        inspect_image(path, limits)
    with pytest.raises(ImageError) as read:
        read_image(path, limits)
    assert read.value.reason == scanned.value.reason
    assert read.value.name == str(path)
    return read.value.reason


# Good files


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_keep_every_pixel(tmp_path, format):
    image = picture()
    image.save(tmp_path / "x", format, **({"lossless": True} if format == "WEBP" else {}))
    result = read_image(tmp_path / "x", LIMITS)
    assert result.mode == "RGB"
    assert (np.asarray(result) == np.asarray(image)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(tmp_path, format, orientation):
    image = picture(48, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x"
    image.save(path, format, exif=exif)
    with Image.open(path) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    result = read_image(path, LIMITS)
    assert result.size == ((32, 48) if orientation >= 5 else (48, 32))
    assert (np.asarray(result) == np.asarray(expected)).all()


def test_damaged_exif_data_does_not_keep_a_picture_from_being_read(tmp_path):
    for junk in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0nonsense" * 9):
        (tmp_path / "x.jpg").write_bytes(encoded(picture(), "JPEG", exif=junk))
        assert read_image(tmp_path / "x.jpg", LIMITS).size == (40, 20)


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    assert abs(pixels(tmp_path / "x.jpg") - [255, 0, 0]).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_become_rgb(tmp_path, mode):
    picture().convert("L").convert(mode).save(tmp_path / "x.png")
    expected = np.asarray(picture().convert("L").convert(mode).convert("RGB"))
    assert (pixels(tmp_path / "x.png") == expected).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_from_its_whole_range(tmp_path, format):
    values = np.array([[0, 256, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "x", format)
    assert pixels(tmp_path / "x")[0, :, 0].tolist() == [round(v / 257) for v in values[0].tolist()]


def test_sixteen_bit_big_endian_tiff_is_scaled_the_same(tmp_path):
    values = np.array([[0, 256, 257, 32768, 65535]], dtype=np.uint16)
    Image.frombytes("I;16B", (5, 1), values.astype(">u2").tobytes()).save(tmp_path / "x.tif")
    assert pixels(tmp_path / "x.tif")[0, :, 2].tolist() == [0, 1, 1, 128, 255]


def test_twelve_bit_tiff_is_scaled_from_twelve_bits(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff(12, bytes([0xFF, 0xF0, 0x00, 0x80, 0x08, 0x00]), width=4))
    assert pixels(tmp_path / "x.tif")[0, :, 0].tolist() == [255, 0, 128, 128]


def tiff(bits, strip, *, width, sample_format=1):
    """Write a little-endian, uncompressed grey TIFF of one row."""
    tags = {
        256: width,
        257: 1,
        258: bits,
        259: 1,
        262: 1,
        273: 0,
        277: 1,
        278: 1,
        279: len(strip),
        339: sample_format,
    }
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + strip


def test_sixteen_bit_can_be_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "x.png")
    assert "16-bit" in reason(tmp_path / "x.png", ImageLimits(sixteen_bit="stop"))


def test_float_and_signed_images_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "f.tif")
    assert reason(tmp_path / "f.tif") == "float images are not supported"
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "i.tif")
    assert reason(tmp_path / "i.tif") == "signed and 32-bit integer images are not supported"
    (tmp_path / "s.tif").write_bytes(tiff(16, bytes(8), width=4, sample_format=2))
    assert reason(tmp_path / "s.tif") == "signed and 32-bit integer images are not supported"


@pytest.mark.parametrize(
    ("mode", "format"), [("RGBA", "PNG"), ("RGBA", "WEBP"), ("LA", "PNG"), ("PA", "TIFF")]
)
def test_transparent_pixels_show_the_background(tmp_path, mode, format):
    path = tmp_path / "x"
    Image.new("RGBA", (6, 6), (255, 0, 0, 0)).convert(mode).save(path, format)
    with Image.open(path) as image:
        assert image.mode == mode
    assert (pixels(path) == 255).all()
    blue = ImageLimits(background=parse_colour("#0000ff"))
    assert (np.asarray(read_image(path, blue)) == [0, 0, 255]).all()


def test_half_transparent_red_on_white_is_pink(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "x.png")
    assert abs(pixels(tmp_path / "x.png") - [255, 127, 127]).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_entries_show_the_background(tmp_path, format):
    image = Image.new("P", (6, 6), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "x", format, transparency=1)
    assert (pixels(tmp_path / "x") == 255).all()


def test_transparent_colour_of_rgb_and_grey_png_shows_the_background(tmp_path):
    Image.new("RGB", (6, 6), (9, 8, 7)).save(tmp_path / "rgb.png", transparency=(9, 8, 7))
    Image.new("L", (6, 6), 9).save(tmp_path / "grey.png", transparency=9)
    assert (pixels(tmp_path / "rgb.png") == 255).all()
    assert (pixels(tmp_path / "grey.png") == 255).all()


@pytest.mark.parametrize(
    ("format", "name"), [("GIF", "x.gif"), ("WEBP", "x.webp"), ("PNG", "x.png"), ("TIFF", "x.tif")]
)
def test_first_picture_of_several_is_read_and_said_to_be(tmp_path, format, name):
    first, second = Image.new("RGB", (12, 10), (250, 0, 0)), Image.new("RGB", (12, 10), (0, 0, 250))
    lossless = {"lossless": True} if format == "WEBP" else {}
    first.save(tmp_path / name, format, save_all=True, append_images=[second], **lossless)
    assert abs(pixels(tmp_path / name) - [250, 0, 0]).max() <= 3
    assert inspect_image(tmp_path / name, LIMITS) == ImageInfo(12, 10, animated=True)
    first.save(tmp_path / name, format)
    assert inspect_image(tmp_path / name, LIMITS) == ImageInfo(12, 10, animated=False)


def test_previews_behind_a_camera_jpeg_are_no_animation(tmp_path):
    picture().save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[picture()])
    assert inspect_image(tmp_path / "x.jpg", LIMITS) == ImageInfo(40, 20, animated=False)
    assert read_image(tmp_path / "x.jpg", LIMITS).size == (40, 20)


@pytest.mark.parametrize(
    ("size", "shrink_to", "expected"),
    [
        ((1000, 800), 100, (125, 100)),
        ((1000, 800), 101, (250, 200)),
        ((1000, 800), 400, (500, 400)),
        ((1000, 800), 401, (1000, 800)),
        ((1000, 800), 2000, (1000, 800)),
    ],
)
def test_big_jpegs_shrink_but_never_below_the_side_wanted(tmp_path, size, shrink_to, expected):
    picture(*size).save(tmp_path / "x.jpg", quality=95)
    full, small = (
        read_image(tmp_path / "x.jpg", LIMITS),
        read_image(tmp_path / "x.jpg", LIMITS, shrink_to=shrink_to),
    )
    assert small.size == expected
    difference = np.asarray(small).astype(int) - np.asarray(full.resize(small.size, Image.Resampling.BOX))
    assert abs(difference).mean() < 2


def test_a_shrunk_photo_is_turned_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(800, 400).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg", LIMITS, shrink_to=100).size == (100, 200)


@pytest.mark.parametrize("name", ["a b", "new\nline", "tab\t", '"', "-rf", "=cmd", "%00", "é", "é" * 120])
def test_strange_names_are_read(tmp_path, name):
    picture().save(tmp_path / name, "PNG")
    assert read_image(tmp_path / name, LIMITS).size == (40, 20)


def test_links_to_files_are_followed(tmp_path):
    picture().save(tmp_path / "real", "PNG")
    (tmp_path / "link.png").symlink_to("real")
    assert read_image(tmp_path / "link.png", LIMITS).size == (40, 20)


# Bad files


def test_a_file_without_bytes_is_empty(tmp_path):
    (tmp_path / "x.jpg").touch()
    assert reason(tmp_path / "x.jpg") == "empty file"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<html></html>\n", "looks like HTML, 14 bytes"),
        (b"\n <!DOCTYPE html><p>404", "looks like HTML, 23 bytes"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "looks like PostScript, 24 bytes"),
        (b'<?xml version="1.0"?><svg/>', "looks like SVG, 27 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "looks like a Git LFS pointer"),
        (b"\0\0\0\x20ftypqt  \0\0\0\0", "looks like QT (video?), 16 bytes"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "damaged HEIC header"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "damaged AVIF header"),
        (bytes(100), "only zeros, 100 bytes"),
        (b"hello", "not an image of a supported format, 5 bytes"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG header"),
        (b"\xff\xd8\xff", "damaged JPEG header"),
    ],
)
def test_other_content_under_an_image_name_is_recognised(tmp_path, content, expected):
    (tmp_path / "x.jpg").write_bytes(content)
    assert reason(tmp_path / "x.jpg").startswith(expected)


def test_formats_outside_the_list_are_refused(tmp_path):
    picture().save(tmp_path / "x.png", "PPM")
    assert reason(tmp_path / "x.png").startswith("not an image of a supported format")


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpegs_are_noticed_wherever_they_end(tmp_path, progressive):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8))
    content = encoded(noise, "JPEG", progressive=progressive)
    for length in (len(content) - 2, len(content) - 200, len(content) // 2, len(content) * 9 // 10):
        (tmp_path / "x.jpg").write_bytes(content[:length])
        assert reason(tmp_path / "x.jpg") == "truncated JPEG"


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_other_truncated_files_are_noticed(tmp_path, format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    content = encoded(noise, format)
    (tmp_path / "x").write_bytes(content[: len(content) // 2])
    assert reason(tmp_path / "x").startswith(("truncated", "damaged"))
    assert format in reason(tmp_path / "x")


def bomb(width, height):
    """Write a PNG of a few kilobytes that unpacks to width × height black pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + (width + 7) // 8) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 15_000, 40_000])
def test_bombs_are_refused_by_their_header(tmp_path, side):
    (tmp_path / "x.png").write_bytes(bomb(side, side))
    assert reason(tmp_path / "x.png") == f"{side * side / 1e6:.4g} MP is over data.max_pixels (50 MP)"


def test_max_pixels_is_inclusive(tmp_path):
    picture(40, 20).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", ImageLimits(max_pixels=800)).size == (40, 20)
    assert "over data.max_pixels" in reason(tmp_path / "x.png", ImageLimits(max_pixels=799))


def test_a_fifo_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    assert reason(tmp_path / "x.png") == "not a regular file"


def test_folders_and_devices_are_not_files(tmp_path):
    assert reason(tmp_path) == "not a regular file"
    assert reason(Path("/dev/zero")) == "not a regular file"


def test_broken_and_circular_links_say_so(tmp_path):
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert reason(tmp_path / "gone.png") == "no such file, or a link to one that is gone"
    assert "symbolic links" in reason(tmp_path / "loop.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_say_so(tmp_path):
    picture().save(tmp_path / "x.png")
    (tmp_path / "x.png").chmod(0)
    assert reason(tmp_path / "x.png") == "no permission to read it"


def test_an_impossible_name_is_an_image_error():
    with pytest.raises(ImageError, match="null"):
        read_image(Path("a\0b.png"), LIMITS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damage_gives_an_image_or_an_image_error_and_nothing_else(tmp_path, format):
    rng = random.Random(7)
    content = encoded(
        picture(24, 16), format, **({"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"} if format == "JPEG" else {})
    )
    path = tmp_path / "x"
    reasons = []
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 4, 16])):
            damaged[rng.randrange(min(len(damaged), rng.choice([40, len(damaged)])))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(1, len(damaged))])])
        try:
            read_image(path, LIMITS)
        except ImageError as error:
            reasons.append(error.reason)
    assert len(reasons) > 50
    assert all(reasons)


# Warnings, messages


def test_pillow_warnings_do_not_reach_the_user_from_any_thread(tmp_path):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"  # five entries announced, none there
    (tmp_path / "x.jpg").write_bytes(encoded(picture(), "JPEG", exif=exif))
    with pytest.warns(UserWarning, match="(?i)exif"), Image.open(tmp_path / "x.jpg") as image:
        image.getexif()
    filters = list(warnings.filters)
    failures = []

    def read_often():
        try:
            for _ in range(50):
                read_image(tmp_path / "x.jpg", LIMITS)
        except Warning as warning:
            failures.append(warning)

    threads = [threading.Thread(target=read_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert warnings.filters == filters


def test_image_errors_are_data_errors_that_survive_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a\nb.jpg", "truncated JPEG")))
    assert isinstance(error, DataError)
    assert (error.name, error.reason, str(error)) == (
        "a\nb.jpg",
        "truncated JPEG",
        "a\\nb.jpg: truncated JPEG",
    )


def test_colours_are_read_by_name_and_number():
    assert parse_colour("#ff8000") == (255, 128, 0)
    assert parse_colour("white") == (255, 255, 255)
    with pytest.raises(ValueError, match="unknown color"):
        parse_colour("whitish")


def test_a_damaged_second_picture_keeps_nobody_from_the_first(tmp_path):
    path = tmp_path / "x.gif"
    first, second = (Image.new("RGB", (6, 5), colour) for colour in ("red", "blue"))
    first.save(path, save_all=True, append_images=[second])
    whole, stumbled = path.read_bytes(), 0
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        try:
            read_image(path, LIMITS)
        except ImageError:
            with pytest.raises(ImageError):
                inspect_image(path, LIMITS)
            continue
        inspect_image(path, LIMITS)
        (look,) = look_at_images([path], LIMITS)
        assert not isinstance(look, str)
        with Image.open(path) as image:
            try:
                image.is_animated  # noqa: B018
            except (struct.error, IndexError):
                stumbled += 1
    assert stumbled, "Pillow finds no fault with any of them: the case is not tested"


# Files that are small and take much time, memory or room on the screen


def test_a_camera_is_what_stands_before_the_end_of_the_text(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Nokia\x002", "N9 "
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg", exif=exif)
    (look,) = look_at_images([tmp_path / "a.jpg"], LIMITS)
    assert look.camera == "Nokia N9"


def scans_repeated(content, times):
    """Return a progressive JPEG whose last scan is there so many times."""
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * times + content[-2:]


def test_a_jpeg_that_repeats_its_scans_is_refused_at_once(tmp_path):
    grey = Image.new("RGB", (3_000, 3_000), "grey")
    grey.save(tmp_path / "once.jpg", progressive=True, quality=30)
    content = (tmp_path / "once.jpg").read_bytes()
    assert 1 < count_scans(content) < 20
    (tmp_path / "bomb.jpg").write_bytes(scans_repeated(content, 400))
    began = time.monotonic()
    assert re.fullmatch(r"JPEG of 4\d\d scans; .* at most 64 are read", reason(tmp_path / "bomb.jpg"))
    assert time.monotonic() - began < 1
    (tmp_path / "few.jpg").write_bytes(scans_repeated(content, 40))
    assert read_image(tmp_path / "few.jpg", ImageLimits()).size == (3_000, 3_000)


def test_scans_of_thumbnails_do_not_count():
    thumbnail = b"\xff\xd8" + b"\xff\xda\0\x02x" * 99 + b"\xff\xd9"
    length = (len(thumbnail) + 2).to_bytes(2, "big")
    start = b"\xff\xd8\xff\xe1" + length + thumbnail
    assert count_scans(start + b"\xff\xda\0\x02picture\xff\0\xff\xd0more\xff\xff\xd9") == 1
    assert count_scans(start + b"\xff\xda\0\x02x" * 70) == 70


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGBA", {}),
        ("LA", {}),
        ("CMYK", {"format": "TIFF"}),
        ("P", {"transparency": 0}),
        ("L", {"transparency": 9}),
    ],
)
def test_the_limit_on_pixels_counts_the_bytes_of_a_pixel(tmp_path, mode, options):
    path = tmp_path / f"x.{'tif' if mode == 'CMYK' else 'png'}"
    Image.new(mode, (40, 20)).save(path, **options)
    assert read_image(path, ImageLimits(max_pixels=1_067)).size == (40, 20)  # 800 pixels of 4 bytes
    assert reason(path, ImageLimits(max_pixels=1_066)) == (
        "0.0008 MP of 4 bytes take more memory than data.max_pixels (0.001066 MP of 3 bytes)"
    )


def test_transparency_and_16_bits_are_converted_in_parts_as_in_one(tmp_path):
    generator = np.random.default_rng(1)
    layer = Image.fromarray(generator.integers(0, 256, (700, 30, 4), np.uint8), "RGBA")
    layer.save(tmp_path / "layer.png")
    ground = Image.new("RGBA", layer.size, (1, 200, 99, 255))
    whole = Image.alpha_composite(ground, layer).convert("RGB")
    own = read_image(tmp_path / "layer.png", ImageLimits(background=(1, 200, 99)))
    assert own.tobytes() == whole.tobytes()
    deep = generator.integers(0, 65536, (700, 30), np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    expected = ((deep.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
    assert np.array_equal(np.asarray(read_image(tmp_path / "deep.png", ImageLimits()))[..., 0], expected)


def test_the_decoder_of_tiff_writes_nothing_to_the_terminal(tmp_path, capfd):
    chance, pixels = random.Random(1), np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    refused = 0
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "TIFF", compression=compression)
        for _ in range(40):
            damaged = bytearray(buffer.getvalue())
            for _ in range(5):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            (tmp_path / "x.tif").write_bytes(damaged)
            try:
                read_image(tmp_path / "x.tif", ImageLimits())
            except ImageError:
                refused += 1
    assert refused > 40
    assert capfd.readouterr() == ("", "")
