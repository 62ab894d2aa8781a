"""Read the images of a request: a form, JSON, or the bytes of one image; nothing is written to the disk."""

import asyncio
import base64
import binascii
import json
import logging
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from finetune.commands.serve.limits import RefusedError, ServeLimits
from finetune.text import printable, shortened, shown_size

ACCEPTED = "multipart/form-data, application/json, or one image as image/* or application/octet-stream"

# It writes a line for every form that is none; its client gets the reason.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())

_MOST_FIELDS = 100
_LONGEST_FIELD = 100_000  # bytes


@dataclass(frozen=True)
class Upload:
    """An image as it arrived."""

    name: str
    """what the client calls it; it opens nothing"""
    content: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What a request asks."""

    uploads: Sequence[Upload]
    metadata: Mapping[str, str] = field(default_factory=dict)
    """of all images"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """`top_k`, `unsure`, where the body has them"""


async def read_question(request: Request, limits: ServeLimits) -> Question:
    """Read a request.

    Raises:
        RefusedError: it is too large, too slow, of another type, or not what its type says.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(limits.timeout):
            question = await _read(request, kind, limits)
    except TimeoutError:
        raise RefusedError(408, f"the request took more than {limits.timeout:g} s to arrive") from None
    except ClientDisconnect:
        raise RefusedError(400, "the request ended before its body was complete") from None
    if not question.uploads:
        raise RefusedError(400, "no image: send some as files of a form, or as base64 in JSON `images`")
    return question


async def _read(request: Request, kind: str, limits: ServeLimits) -> Question:
    if kind == "multipart/form-data":
        return await _read_form(request, limits)
    if kind != "application/json" and not kind.startswith("image/") and kind != "application/octet-stream":
        raise RefusedError(415, f"expected {ACCEPTED}, got {printable(shortened(kind)) or 'no content type'}")
    content = bytearray()
    async for chunk in _bounded(request, limits.max_bytes):
        content += chunk
    if kind == "application/json":  # the base64 of many bytes takes a while: not between other requests
        return await asyncio.to_thread(parse_json, bytes(content), limits)
    return Question([Upload("image 1", bytes(content))])


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Return the parts of a body as they come, as long as they are not too much together."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise too_large(most)
        yield chunk


def too_large(most: int) -> RefusedError:
    """Return the refusal of a body."""
    return RefusedError(413, f"the request is larger than {shown_size(most)}; send fewer images at once")


class _FormInMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # the limit on the body holds for its parts; the disk sees none of them

    async def parse(self) -> FormData:
        try:
            return await super().parse()
        except BaseException:  # starlette closes the files of its own errors alone
            for file in self._files_to_close_on_error:
                file.close()
            raise


async def _read_form(request: Request, limits: ServeLimits) -> Question:
    parser = _FormInMemory(
        request.headers,
        _bounded(request, limits.max_bytes),
        max_files=limits.max_images,
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:  # older releases of starlette pass the second on
        message = str(error.message if isinstance(error, MultiPartException) else error)
        too_many = message.startswith("Too many")
        raise RefusedError(413 if too_many else 400, _sentence(message)) from None
    uploads, settings = list[Upload](), dict[str, Any]()
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            called = printable(shortened(value.filename or "")) or f"image {len(uploads) + 1}"
            uploads.append(Upload(called, await value.read()))
        else:
            settings[name] = value
    await form.close()
    metadata = settings.pop("metadata", None)
    cells = {} if metadata is None else _cells(_parsed(metadata.encode()), "metadata")
    return Question(uploads, cells, settings)


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")


def parse_json(content: bytes, limits: ServeLimits) -> Question:
    """Read `{"images": [base64 or {"name", "data", "metadata"}], "metadata", "top_k", "unsure"}`.

    Raises:
        RefusedError: it is anything else.
    """
    document = _parsed(content)
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise RefusedError(400, 'expected JSON {"images": [base64, …]}')
    images, metadata = document.pop("images"), document.pop("metadata", {})
    if len(images) > limits.max_images:
        raise RefusedError(413, f"{len(images):,} images; at most {limits.max_images} may come at once")
    uploads = [_json_upload(image, number) for number, image in enumerate(images, start=1)]
    return Question(uploads, _cells(metadata, "metadata"), document)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # bytes that are no text, numbers of many digits, brackets
        raise RefusedError(400, f"not JSON: {printable(shortened(str(error)))}") from None


def _json_upload(image: Any, number: int) -> Upload:
    given = image if isinstance(image, dict) else {"data": image}
    name, data = given.get("name", f"image {number}"), given.get("data")
    if not isinstance(data, str) or not isinstance(name, str):
        raise RefusedError(
            400, f"images[{number - 1}]: expected base64 text, or an object with name and data"
        )
    text = data.partition(",")[2] if data.startswith("data:") else data
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        hint = "; paths and addresses are not opened" if "/" in text[:200] or ":" in text[:200] else ""
        raise RefusedError(400, f"images[{number - 1}]: data is not base64{hint}") from None
    cells = _cells(given.get("metadata", {}), f"images[{number - 1}].metadata")
    return Upload(printable(shortened(name)), content, cells)


def _cells(given: Any, where: str) -> Mapping[str, str]:
    """Return metadata as cells of a table; null is one that is missing."""
    if not isinstance(given, dict) or not all(
        value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))
        for value in given.values()
    ):
        raise RefusedError(400, f"{where}: expected an object of texts and numbers by the name of the column")
    return {name: "" if value is None else str(value).strip() for name, value in given.items()}
