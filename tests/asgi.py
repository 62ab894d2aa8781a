"""Requests to a model that is served, without a port: as a web server hands them to the application."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from finetune.commands.serve.limits import ServeOptions


class Answer(NamedTuple):
    status: int
    headers: dict
    content: bytes

    @property
    def json(self):
        return json.loads(self.content)

    @property
    def error(self):
        return self.json["error"]


async def ask(app, method="POST", path="/predict", *, headers=None, parts=(b"",), ends=True):
    """Answer a request as a web server would hand it to the application, the body in parts.

    Where it does not end, its client leaves after the last part.
    """
    given = {"host": "localhost:8000", **(headers or {})}
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()]
    address, _, query = path.partition("?")
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"},
        **{"method": method, "path": address, "raw_path": address.encode(), "query_string": query.encode()},
        **{"headers": raw, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "root_path": ""},
    }
    waiting, sent = list(parts), []

    async def receive():
        if not waiting:
            if ends:
                await asyncio.sleep(60)
            return {"type": "http.disconnect"}
        part = waiting.pop(0)
        if callable(part):
            part = await part()
        return {"type": "http.request", "body": part, "more_body": bool(waiting) or not ends}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], found, b"".join(m.get("body", b"") for m in sent))


@asynccontextmanager
async def running(trained, **options):
    from finetune.commands.serve.app import build_app  # it needs the extra serve

    app = build_app(trained, ServeOptions(**options))
    async with app.router.lifespan_context(app):
        yield app


def answer(trained, *requests, **options):
    """Return the answers to requests that come at the same time."""

    async def go():
        async with running(trained, **options) as app:
            return await asyncio.gather(*(ask(app, **request) for request in requests))

    return asyncio.run(go())


def form(*files, boundary="edge", **fields):
    """Return a request that sends files, as pairs of name and content, by a form."""
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="images"; filename="{name}"', content) for name, content in files]
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n"
        % (boundary.encode(), what.encode(), content)
        for what, content in parts
    )
    kind = f"multipart/form-data; boundary={boundary}"
    return {"headers": {"content-type": kind}, "parts": [body + f"--{boundary}--\r\n".encode()]}


def as_json(document):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {"headers": {"content-type": "application/json"}, "parts": [body]}


def base64_of(content):
    return base64.b64encode(content).decode()


def same(found, expected):
    """Tell whether answers are equal but for the last bits, which the size of a batch may change."""
    for one, other in zip(found, expected, strict=True):
        numbers = [[guess["probability"] for guess in answer["predictions"]] for answer in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)
        assert [guess["class"] for guess in one["predictions"]] == [g["class"] for g in other["predictions"]]
        rest = [{k: v for k, v in a.items() if k not in ("predictions", "certainty")} for a in (one, other)]
        assert rest[0] == rest[1]
    return True
