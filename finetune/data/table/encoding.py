"""Decode the text of a table: UTF-8, UTF-16 by its byte-order mark, or what `data.encoding` names."""

import codecs
from collections.abc import Callable
from os.path import isfile
from pathlib import Path
from typing import Literal

from finetune.choices import AUTO_ENCODING
from finetune.errors import DataError
from finetune.text import printable, shortened

Errors = Literal["strict", "surrogateescape"]
"""What to do about bytes that are not UTF-8: refuse them, or keep them as Python does in names of files."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""byte-order marks; that of UTF-32 begins like one of UTF-16"""
_GUESS = "cp1252"
"""what programs on Windows write in Western Europe and the Americas, if they do not write UTF-8"""


def decode_text(path: Path, content: bytes, encoding: str, errors: Errors) -> tuple[str, str]:
    """Return the text of a file, and the encoding that it was read in.

    Args:
        path: the file, for messages.
        content: its bytes.
        encoding: its encoding; `auto` for UTF-8, or UTF-16 and UTF-32 with a byte-order mark.
        errors: what to do about bytes that are not UTF-8, with `auto`.

    Raises:
        DataError: it is in another encoding, or no text at all.
    """
    if encoding != AUTO_ENCODING:
        return _decode(path, content, encoding, "strict", lambda error: _not_as_named(error, encoding))
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if marked is None and b"\0" in content:
        raise DataError(f"{printable(str(path))} is no text in UTF-8{_without_mark(content)}.")
    if marked in (None, "utf-8"):
        return _decode(path, content, "utf-8", errors, lambda error: _not_utf8(content, error))
    assert marked is not None
    return _decode(path, content, marked, "strict", lambda error: f"not {marked.upper()} ({error.reason})")


def fitting_encoding(path: Path, encoding: str) -> str:
    """Return `auto` for a file that is UTF-8 or has a byte-order mark, else that of others like it."""
    if encoding == AUTO_ENCODING or not isfile(path) or path.suffix.lower() == ".parquet":
        return AUTO_ENCODING
    try:
        decode_text(path, path.read_bytes(), AUTO_ENCODING, "strict")
    except (DataError, OSError):
        return encoding
    return AUTO_ENCODING


def _decode(
    path: Path, content: bytes, encoding: str, errors: Errors, complain: Callable[[UnicodeDecodeError], str]
) -> tuple[str, str]:
    try:
        return content.decode(encoding, errors).removeprefix("\ufeff"), encoding
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{printable(str(path))}:{line}: {complain(error)}.") from None
    except UnicodeError as error:  # some codecs know only this one
        raise DataError(f"{printable(str(path))}: not {encoding} ({error}).") from None


def _not_as_named(error: UnicodeDecodeError, encoding: str) -> str:
    return (
        f"byte 0x{error.object[error.start]:02x} is nothing in {encoding}; "
        "set another data.encoding, or leave it out for UTF-8"
    )


def _not_utf8(content: bytes, error: UnicodeDecodeError) -> str:
    """Say that some text is not UTF-8, and how its line would read in the encoding that is most likely."""
    start = content.rfind(b"\n", 0, error.start) + 1
    line = content[start : content.find(b"\n", error.start) % (len(content) + 1)].decode(_GUESS, "replace")
    shown = shortened(printable(line.strip()), 60)
    return (
        f"not UTF-8 (byte 0x{content[error.start]:02x}); name the encoding, for instance data.encoding: "
        f"{_GUESS}, in which the line is {shown!r}, or save the table as UTF-8"
    )


def _without_mark(content: bytes) -> str:
    """Guess at UTF-16 without a mark from where the zero bytes of Latin letters stand."""
    head = content[:2000]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) < len(head) // 4 or min(even, odd) > len(head) // 20:
        return "; save the table as CSV"
    return f"; it may be UTF-16 without a mark: data.encoding: utf-16-{'le' if odd > even else 'be'}"
