"""What a server accepts, and how it says what it does not."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeLimits:
    """What one client may ask of a server."""

    max_bytes: int = 20_000_000
    """most bytes of a request's body"""
    max_images: int = 64
    """most images of a request"""
    max_pixels: int | None = None
    """most pixels of an image; None for what training read at most (`data.max_pixels`)"""
    timeout: float = 30.0
    """seconds that a request may take to arrive, and as long again to be answered"""
    max_requests: int = 64
    """requests that are read and answered at once; those beyond it are asked to come again"""


@dataclass(frozen=True)
class ServeOptions:
    """How a model is served."""

    host: str = "127.0.0.1"
    """address to listen on"""
    port: int = 8000
    """0 for one that is free"""
    allowed_hosts: tuple[str, ...] = ()
    """further names that clients may call the server by; `*` for any"""
    top_k: int = 3
    """classes of each answer, unless a request asks for more or fewer"""
    unsure: float | None = None
    """certainty below which an answer is marked as unsure, 0–1"""
    tta: bool = False
    """whether to answer by the mean over several views of each image"""
    limits: ServeLimits = ServeLimits()


@dataclass
class Load:
    """What a server is busy with."""

    requests: int = 0
    """whose body is read, or which are answered"""


class RefusedError(Exception):
    """A request that is not answered, with the HTTP status and the reason in a line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
