"""Read an image file of unknown quality into RGB pixels.

Training, evaluation, prediction and the scan before a run all read through here, so that an image means the
same pixels everywhere. Colour profiles are ignored. Of files that hold several images the first is read.
"""

import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image

from finetune.data.image_files import file_status, open_file
from finetune.data.images.convert import to_rgb
from finetune.data.images.diagnose import decoder_reason, file_reason, too_big
from finetune.data.images.formats import INSTALL_HEIF, HeifMissingError, formats_of, silence_libtiff
from finetune.data.images.jpeg_scans import MOST_SCANS, count_scans
from finetune.data.images.limits import ImageLimits
from finetune.errors import DataError
from finetune.text import printable

_USUAL_BYTES = 3
"""of a pixel in red, green and blue; the limit on pixels is one on memory"""
_BYTES = {"RGBA": 4, "RGBa": 4, "LA": 4, "La": 4, "PA": 4, "CMYK": 4, "I": 4}
"""what Pillow holds of a pixel in modes that need more"""

# What Pillow has to say of a damaged file it also raises; Python would print what nobody handles.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# What Pillow raises on damaged files of these formats. Found by damaging files, not by reading: its decoders
# let through whatever struct, zlib and dictionary look-ups raise on nonsense.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageInfo(NamedTuple):
    """What the scan remembers of a readable file."""

    width: int
    height: int
    animated: bool
    """holds several images, of which only the first is used"""


class ImageError(DataError):
    """One file that is not a readable image, with the reason in a few words."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason}"


def read_image(path: Path, limits: ImageLimits, *, shrink_to: int | None = None) -> Image.Image:
    """Read an image upright, as RGB, with transparency laid on the background.

    Args:
        path: a regular file, or a link to one.
        limits: what is accepted and how it is converted.
        shrink_to: shortest side in pixels that is still enough. Big JPEGs are then decoded at 1/2, 1/4 or
            1/8 of their size, never below this. The pixels depend on it: pass the same for all uses.

    Raises:
        ImageError: anything that keeps the file from being such an image.
    """
    with opened(path, limits) as image:
        if shrink_to is not None:
            image.draft(None, (shrink_to, shrink_to))
        return to_rgb(upright(image), limits)


def decode_image(
    content: bytes, limits: ImageLimits, *, name: str, shrink_to: int | None = None
) -> Image.Image:
    """Read an image from the bytes of a file of one of the usual formats, to the pixels of `read_image`.

    Args:
        content: what the file holds.
        limits: what is accepted and how it is converted.
        name: what messages call it; it opens no file, and says nothing of the format.
        shrink_to: as for `read_image`.

    Raises:
        ImageError: anything that keeps the bytes from being such an image.
    """
    if not content:
        raise ImageError(name, "empty file")
    with _decoder(io.BytesIO(content), len(content), limits, name=name, known_by="") as image:
        if shrink_to is not None:
            image.draft(None, (shrink_to, shrink_to))
        return to_rgb(upright(image), limits)


def convert_image(image: Image.Image, limits: ImageLimits, *, name: str) -> Image.Image:
    """Convert an image in memory as `read_image` converts one that it has decoded; it is left as it is.

    Args:
        image: any mode, with or without an EXIF orientation.
        limits: what is accepted and how it is converted.
        name: what messages call it.

    Raises:
        ImageError: it is too large, of a mode that is not supported, or its file turns out to be damaged.
    """
    with _pillow_silenced():
        try:
            _check_header(name, image, limits)
            return to_rgb(upright(image), limits)
        except ImageError:
            raise
        except DECODER_ERRORS as error:
            raise ImageError(name, str(error)) from error


def inspect_image(path: str | Path, limits: ImageLimits) -> ImageInfo:
    """Decode a file completely, as `read_image` will, and return only what is known of it.

    JPEGs are decoded at an eighth of their size, which still reads every byte and is much faster.

    Raises:
        ImageError: as `read_image`.
    """
    with opened(path, limits) as image:
        size = image.size
        image.draft(None, (1, 1))
        to_rgb(upright(image), limits)
        return ImageInfo(*size, is_animated(image))


def is_animated(image: Image.Image) -> bool:
    """Tell whether there is more than the image that was decoded; call it after decoding.

    Pillow looks for a second one, and stumbles over one that is damaged. It is there, and is not used.
    """
    if image.format == "MPO":  # cameras put previews and depth maps behind a JPEG's image
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except DECODER_ERRORS:
        return True


@contextmanager
def opened(path: str | Path, limits: ImageLimits) -> Iterator[Image.Image]:
    """Open a file, check its header, and turn every complaint about it into an ImageError."""
    name = os.fspath(path)
    try:
        size = _regular_file_size(name)
        file = open_file(name)
    except OSError as error:
        raise ImageError(name, file_reason(error)) from error
    except ValueError as error:  # a NUL in the name
        raise ImageError(name, str(error)) from error
    with file, _decoder(file, size, limits, name=name, known_by=name) as image:
        yield image


@contextmanager
def _decoder(
    file: IO[bytes], size: int, limits: ImageLimits, *, name: str, known_by: str
) -> Iterator[Image.Image]:
    """Open the image in a file that is open; its first bytes and the ending of `known_by` tell its format."""
    with _pillow_silenced():
        try:
            raw = getattr(file, "raw", file)  # what is buffered would be of the file as it was
            start = raw.read(64)
            raw.seek(0)
            silence_libtiff()
            with Image.open(file, formats=formats_of(known_by, start)) as image:
                _check_header(name, image, limits)
                _check_scans(name, image, file)
                yield image
        except ImageError:
            raise
        except HeifMissingError:
            raise ImageError(name, f"HEIC, which pillow-heif reads ({INSTALL_HEIF})") from None
        except DECODER_ERRORS as error:
            file.seek(0)
            reason = decoder_reason(error, file.read(512), size, limits.max_pixels)
            raise ImageError(name, reason) from error


def _regular_file_size(name: str) -> int:
    """Return the size in bytes of a regular file; opening a FIFO or a device could block for ever."""
    status = file_status(name)
    if not status.is_file:
        raise ImageError(name, "not a regular file")
    if status.size == 0:
        raise ImageError(name, "empty file")
    return status.size


def _check_header(name: str, image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageError(name, too_big(width * height, limits.max_pixels))
    held = _BYTES.get(image.mode, _USUAL_BYTES)
    if "transparency" in image.info:  # it becomes a fourth channel
        held = max(held, 4)
    if width * height * held > limits.max_pixels * _USUAL_BYTES:
        raise ImageError(name, too_big(width * height, limits.max_pixels, bytes_each=held))
    if image.mode == "F":
        raise ImageError(name, "float images are not supported")
    if image.mode == "I" and image.format == "TIFF":
        raise ImageError(name, "signed and 32-bit integer images are not supported")
    if image.mode.startswith("I") and limits.sixteen_bit == "stop":
        raise ImageError(name, "16-bit grey (data.sixteen_bit: scale accepts it)")


def _check_scans(name: str, image: Image.Image, file: IO[bytes]) -> None:
    """Refuse a JPEG that repeats itself: each scan of a progressive one goes over all pixels again."""
    if image.format not in ("JPEG", "MPO"):
        return
    place = file.tell()
    file.seek(0)
    scans = count_scans(file.read())
    file.seek(place)
    if scans > MOST_SCANS:
        raise ImageError(
            name, f"JPEG of {scans:,} scans; most have 1 to 10, and at most {MOST_SCANS} are read"
        )


def upright(image: Image.Image) -> Image.Image:
    """Rotate an image the way its EXIF orientation says.

    `ImageOps.exif_transpose` also rewrites the rest of the EXIF data, and fails where that is damaged. Data
    that cannot be read at all says nothing about orientation.
    """
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except DECODER_ERRORS:
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


_silencing = 0
_silencing_lock = threading.Lock()
_silenced = warnings.catch_warnings()


@contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Keep Pillow's warnings about odd metadata and big images from the user.

    Where threads overlap, `catch_warnings` alone restores the wrong filters: here the first one in sets
    them and the last one out restores them.
    """
    global _silencing, _silenced
    with _silencing_lock:
        _silencing += 1
        if _silencing == 1:
            _silenced = warnings.catch_warnings()
            _silenced.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _silencing_lock:
            _silencing -= 1
            if _silencing == 0:
                _silenced.__exit__(None, None, None)
