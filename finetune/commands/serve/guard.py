"""What stands before every request: who may ask, how much, and how many at once."""

import asyncio
import json
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune.commands.serve.body import too_large
from finetune.commands.serve.limits import Load, RefusedError, ServeLimits

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
"""names of this machine for itself"""

_MOST_DISCARDED = 100_000_000  # bytes of a body that is refused; beyond it the connection is cut

_DISCARDING = 10.0  # seconds

_PROTECTING = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Refuses what must not reach the application, before a byte of its body is kept."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str], limits: ServeLimits, load: Load) -> None:
        """Stand before an application.

        Args:
            app: what answers.
            allowed: names that the server may be called by; `*` for any.
            limits: how much it takes.
            load: where it counts the requests that it has let through.
        """
        self._app, self._allowed, self._limits, self._load = app, allowed, limits, load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, body = Headers(scope=scope), _Body(receive)
        try:
            await self._answer(scope, headers, body, send)
        except RefusedError as refused:
            sends = body.begun or headers.get("expect", "").lower() != "100-continue"
            if sends and refused.status != 408:  # who was slow has been waited for
                await body.discard()
            response = error_response(refused.status, refused.reason)
            response.raw_headers += [*_PROTECTING, *(() if body.finished else [(b"connection", b"close")])]
            await response(scope, body, send)

    async def _answer(self, scope: Scope, headers: Headers, body: "_Body", send: Send) -> None:
        asks = scope["method"] == "POST"
        self._check(headers, asks=asks)
        self._load.requests += asks
        try:
            await self._app(scope, body, _protected(send))
        finally:
            self._load.requests -= asks

    def _check(self, headers: Headers, *, asks: bool) -> None:
        """Refuse other hosts, pages of other sites, what is too large, and what is too many."""
        host = headers.get("host", "")
        name = _host_name(f"//{host}")
        if "*" not in self._allowed and name not in self._allowed:
            # A site could call itself by a name that leads here, and read the answers (DNS rebinding).
            raise RefusedError(403, "this server does not go by that name; --allow-host NAME admits it")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            raise RefusedError(403, "pages of other sites may not ask this server")
        if not asks:
            return
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limits.max_bytes:
            raise too_large(self._limits.max_bytes)
        if self._load.requests >= self._limits.max_requests:
            raise RefusedError(
                503, f"{self._load.requests} requests are being answered; try again in a second"
            )


def _host_name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # brackets that do not close
        return ""


def _netloc(address: str) -> str:
    """Return host and port of an address, in lower case; empty for what is none."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""


def _protected(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_PROTECTING]
        await send(message)

    return with_headers


class _Body:
    """The body of a request, of which is known whether all of it has arrived."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.begun = False
        self.finished = False

    async def __call__(self) -> Message:
        """Return the next part, as ASGI has it."""
        self.begun = True
        message = await self._receive()
        self.finished = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Read what its client still sends: a connection cut in its midst loses the answer on the way."""
        left = _MOST_DISCARDED
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARDING):
                while left > 0 and not self.finished:
                    left -= len((await self()).get("body", b""))


def error_response(status: int, reason: str) -> Response:
    """Return `{"error": reason}`."""
    headers = {"retry-after": "1"} if status == 503 else {}
    return Response(json.dumps({"error": reason}), status, headers, "application/json")
