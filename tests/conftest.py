import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


class NetworkUsedError(OSError):
    """A test tried to reach another machine."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every network connection raise; sockets between processes of this machine still work."""
    connect = socket.socket.connect

    def refuse_connect(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise NetworkUsedError(f"a test connects to {address}")
        connect(self, address)

    def refuse_lookup(host: object, *_: object, **__: object) -> None:
        raise NetworkUsedError(f"a test looks up {host}")

    monkeypatch.setattr(socket.socket, "connect", refuse_connect)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_lookup)


@pytest.fixture
def hub_folder(tmp_path: Path) -> Iterator[Path]:
    """Point torch.hub's cache at an empty folder, and give the folder of the weights in it."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)
