"""Which formats a file may be in: by its ending and its first bytes, not by trying all that Pillow knows."""

import ctypes
import os
from contextlib import suppress
from functools import cache

from PIL import _imaging

from finetune.choices import IMAGE_ENDINGS

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""What a file may hold whatever its ending; left to itself Pillow tries forty more, some of which take any
bytes, and hands PostScript to Ghostscript."""

INSTALL_HEIF = "pip install 'finetune-vision[heif]'"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_GENERAL_BRANDS = (b"mif1", b"msf1")
_FORMAT_OF = {ending: name for name, endings in IMAGE_ENDINGS.items() for ending in endings}


class HeifMissingError(ImportError):
    """A file is HEIC, and nothing is installed that reads it."""


def formats_of(name: str, start: bytes) -> tuple[str, ...]:
    """Return the formats that a file may be in, for `PIL.Image.open`.

    Args:
        name: the file's name.
        start: its first 64 bytes.

    Raises:
        HeifMissingError: it is HEIC, and pillow-heif is not installed.
    """
    if _is_heif(start):
        register_heif()
        return ("HEIF",)
    own = _FORMAT_OF.get(os.path.splitext(name)[1].lower())
    return FORMATS if own is None or own in FORMATS or own == "HEIF" else (*FORMATS, own)


@cache
def register_heif() -> None:
    """Make Pillow read HEIC.

    Raises:
        HeifMissingError: pillow-heif is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise HeifMissingError from None
    pillow_heif.register_heif_opener()


@cache
def silence_libtiff() -> None:
    """Keep libtiff, which Pillow decodes TIFF with, from writing about damaged files to stderr.

    Pillow says what is wrong by an exception. Where libtiff is a part of Pillow's own library, as on Windows,
    it cannot be reached.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


def _is_heif(start: bytes) -> bool:
    """Tell HEIC from AVIF, which is in the same container and which Pillow reads itself."""
    if start[4:8] != b"ftyp":
        return False
    brand, others = start[8:12], start[16:]
    return brand in _HEIF_BRANDS or (
        brand in _GENERAL_BRANDS and any(other in others for other in _HEIF_BRANDS) and b"avif" not in others
    )
