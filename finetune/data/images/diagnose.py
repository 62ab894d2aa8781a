"""Say in a few words why a file is not a readable image."""

import re

from PIL import Image, UnidentifiedImageError

from finetune.text import counted

# How the files begin that are most often found under an image's name.
_IMPOSTORS = (
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"<head", "HTML"),
    (b"<body", "HTML"),
    (b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` fetches the image)"),
    (b"%!ps", "PostScript"),
    (b"%pdf", "PDF"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
)
_FORMATS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"RIFF", "WEBP"),
    (b"BM", "BMP"),
    (b"qoif", "QOI"),
    (b"8BPS", "PSD"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)


def decoder_reason(error: Exception, start: bytes, size: int, max_pixels: int) -> str:
    """Translate what a decoder raised.

    Args:
        error: Pillow's exception.
        start: the first few hundred bytes of the file.
        size: bytes of the file.
        max_pixels: the limit that the message names.
    """
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        return too_big(int(pixels[1]), max_pixels) if pixels else "too many pixels"
    known = next((name for magic, name in _FORMATS if start.startswith(magic)), None)
    if isinstance(error, UnidentifiedImageError):
        return f"damaged {known} header" if known else _guess(start, size)
    damage = "truncated" if "truncated" in str(error).lower() else "damaged"
    return f"{damage} {known or 'image'}"


def file_reason(error: OSError) -> str:
    """Translate what the file system said."""
    if isinstance(error, FileNotFoundError):
        return "no such file, or a link to one that is gone"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return (error.strerror or str(error)).lower()


def too_big(pixels: int, max_pixels: int, *, bytes_each: int = 3) -> str:
    """Compare a size with the limit, in megapixels, or in megabytes where a pixel takes more than usual."""
    if bytes_each > 3 and pixels <= max_pixels:
        return (
            f"{pixels / 1e6:.4g} MP of {bytes_each} bytes take more memory than data.max_pixels "
            f"({max_pixels / 1e6:.4g} MP of 3 bytes)"
        )
    if pixels <= max_pixels:
        return f"{pixels / 1e6:.4g} MP is more than Pillow opens"
    return f"{pixels / 1e6:.4g} MP is over data.max_pixels ({max_pixels / 1e6:.4g} MP)"


def _guess(start: bytes, size: int) -> str:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, name in _IMPOSTORS:
        if text.startswith(magic):
            return f"looks like {name}, {counted(size, 'byte')}"
    if b"<svg" in text:
        return f"looks like SVG, {counted(size, 'byte')}"
    if start[4:8] == b"ftyp":
        brand = start[8:12].decode("ascii", "replace").strip().upper()
        damaged = brand in ("AVIF", "AVIS", "HEIC", "HEIX", "MIF1")
        return (
            f"damaged {brand} header" if damaged else f"looks like {brand} (video?), {counted(size, 'byte')}"
        )
    if start[128:132] == b"DICM":
        return f"looks like DICOM, {counted(size, 'byte')}"
    if not start.strip(b"\0"):
        return f"only zeros, {counted(size, 'byte')}"
    return f"not an image of a supported format, {counted(size, 'byte')}"
