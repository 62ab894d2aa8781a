"""Files of weights in torch's cache, and how they get there."""

import http.client
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch

from finetune.errors import WeightsError
from finetune.model.origin import sha256_of

Say = Callable[[str], None]
"""Tells the user one line."""

WAYS_OUT = "set model.weights to a file, to builtin:glyphs, or to none for random weights"

_TIMEOUT = 30.0  # seconds without a byte, after which a download has failed


@dataclass(frozen=True)
class Download:
    """A file of published weights that is not on this machine yet."""

    url: str
    megabytes: float | None
    """Its size in MB, where it is known."""
    image_size: int
    """Side in pixels of the square images that the weights were made for."""

    def __str__(self) -> str:
        return self.url if self.megabytes is None else f"{self.url} ({self.megabytes:.0f} MB)"


def cached_path(url: str) -> Path:
    """Return where torch's cache keeps the file of a URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def fetch(download: Download, path: Path, say: Say) -> None:
    """Download to a temporary name, check the hash that the file's name ends in, and rename.

    Raises:
        WeightsError: it cannot be fetched; says which file to put where.
    """
    say(f"fetching {download} to {path.parent}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(_TIMEOUT):
            torch.hub.download_url_to_file(download.url, str(path), _named_hash(path), sys.stderr.isatty())
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # RuntimeError: the hash is wrong
        url = urlparse(download.url)
        raise WeightsError(
            f"Weights {path.name} are not in {path.parent} and cannot be fetched from {url.netloc}{url.path} "
            f"({error}).\nPut that file into that folder, or {WAYS_OUT}."
        ) from None


def has_named_hash(path: Path) -> bool:
    """Tell whether a file's sha256 begins with the digits its name ends in, if its name has any."""
    return sha256_of(path).startswith(_named_hash(path) or "")


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Let a silent connection fail; torch's downloader would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _named_hash(path: Path) -> str | None:
    found = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return found[1] if found else None
