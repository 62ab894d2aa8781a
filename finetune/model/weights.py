"""Pretrained weights: find what `model.weights` names, fetch it if need be, and read it."""

import hashlib
import http.client
import json
import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from finetune.errors import CheckpointError, ConfigError, WeightsError
from finetune.model.catalogue import Architecture, architectures, weights_enum
from finetune.model.preprocessing import Preprocessing
from finetune.model.tensors import SUFFIXES, read_tensors

Say = Callable[[str], None]
"""Tells the user one line."""

_BUILTIN = Path(__file__).parents[1] / "data" / "builtin"

_TIMEOUT = 30.0  # seconds without a byte, after which a download has failed

_RESCALED = ("googlenet", "inception")


@dataclass(frozen=True)
class Weights:
    """Pretrained weights, and what they say about images."""

    origin: str
    """Where they came from, for messages."""
    preprocessing: Preprocessing
    tensors: dict[str, Tensor] | None
    """By torchvision's names, or by ours for a run; None for random weights."""
    transform_input: bool = False
    """Whether GoogLeNet and Inception rescale their input."""
    of_run: bool = False
    """Whether the names are those of an `ImageClassifier`."""
    arch: str | None = None
    """Architecture that they belong to; None where only their names and shapes tell."""


def load_weights(name: str, arch: Architecture, say: Say | None = None) -> Weights:
    """Find and read the weights that `model.weights` names.

    Args:
        name: `default`; a torchvision name such as `IMAGENET1K_V2`; a `.safetensors` or `.pth` file;
            `builtin:NAME`; or `none` for random weights.
        arch: the architecture they are for.
        say: called with a line before a download, and about anything doubtful; by default it is logged.

    Raises:
        ConfigError: there are no weights of that name, or they are another architecture's.
        WeightsError: the file is missing, damaged, or cannot be fetched.
    """
    say = say or logging.getLogger(__name__).warning
    if name == "none":
        return Weights(name, _default_preprocessing(arch), tensors=None)
    if name.startswith("builtin:"):
        return _load_file(_find_builtin(name), arch, say, rescaled=False)
    entry = _torchvision_entry(name, arch)
    if entry is not None:
        return _load_torchvision(entry, arch, say)
    path = Path(name).expanduser()
    if path.suffix in SUFFIXES or path.is_file():
        return _load_file(path, arch, say, rescaled=arch.family in _RESCALED)
    raise WeightsError(f"model.weights: there is no file or run folder {path}.")


@dataclass(frozen=True)
class Download:
    """A file of torchvision's weights that is not on this machine yet."""

    url: str
    megabytes: float
    image_size: int
    """Side in pixels of the square images that the weights were made for."""


def pending_download(name: str, arch: Architecture) -> Download | None:
    """Tell what `load_weights` would have to fetch first; None where everything is on this machine.

    Raises:
        ConfigError: as `load_weights`.
    """
    entry = _torchvision_entry(name, arch)
    if entry is None or _cached(entry).exists():
        return None
    size = Preprocessing.from_weights(entry.transforms()).image_size
    return Download(entry.url, entry.meta["_file_size"], size)


def _torchvision_entry(name: str, arch: Architecture) -> WeightsEnum | None:
    """Return the entry of torchvision's catalogue that a name means; None for all other weights."""
    if name == "default":  # before paths: a folder may be called so as well
        default: WeightsEnum = weights_enum(arch.name)["DEFAULT"]
        return default
    path = Path(name).expanduser()
    elsewhere = name == "none" or name.startswith("builtin:") or path.suffix in SUFFIXES or "/" in name
    return None if elsewhere or path.exists() else _find_entry(name, arch)


def _cached(entry: WeightsEnum) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(entry.url).path).name


def _default_preprocessing(arch: Architecture) -> Preprocessing:
    return Preprocessing.from_weights(weights_enum(arch.name)["DEFAULT"].transforms())


def _find_builtin(name: str) -> Path:
    path = _BUILTIN / f"{name.removeprefix('builtin:')}.safetensors"
    known = sorted(f"builtin:{file.stem}" for file in _BUILTIN.glob("*.safetensors"))
    if f"builtin:{path.stem}" not in known:
        raise ConfigError(f"model.weights: there is no {name}; there is {', '.join(known) or 'none at all'}.")
    return path


def _find_entry(name: str, arch: Architecture) -> WeightsEnum:
    """Look up a name such as `IMAGENET1K_V2` or `ResNet50_Weights.IMAGENET1K_V2`."""
    owner, _, entry = name.rpartition(".")
    enum = weights_enum(arch.name)
    if owner and owner != enum.__name__:
        theirs = [other.name for other in architectures() if weights_enum(other.name).__name__ == owner]
        advice = f"set model.arch: {theirs[0]}" if theirs else "no architecture has them"
        raise ConfigError(f"model.weights: {name} is not for {arch.name}; {advice}.")
    if entry not in enum.__members__:
        raise ConfigError(
            f"model.weights: {arch.name} has no weights called {name!r}; there is default, "
            f"{', '.join(arch.weights)}, a .safetensors or .pth file, a run folder, builtin:NAME, or none."
        )
    found: WeightsEnum = enum[entry]
    return found


def _load_file(path: Path, arch: Architecture, say: Say, *, rescaled: bool) -> Weights:
    tensors, metadata = read_tensors(path, advice="Restore it, or name other weights.")
    made_for = metadata.get("arch", arch.name)
    if made_for != arch.name:
        raise ConfigError(
            f"model.weights: {path.name} holds weights of {made_for}, not of {arch.name}; "
            f"set model.arch: {made_for}."
        )
    if "preprocessing" in metadata:
        preprocessing = _read_preprocessing(metadata["preprocessing"], path)
    else:
        preprocessing = _preprocessing_by_file_name(path, arch, say)
    return Weights(str(path), preprocessing, tensors, transform_input=rescaled)


def _read_preprocessing(text: str, path: Path) -> Preprocessing:
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise CheckpointError("preprocessing: expected a JSON object.")
        return Preprocessing.from_dict(fields)
    except (json.JSONDecodeError, CheckpointError) as error:
        raise WeightsError(f"model.weights: the metadata of {path} is wrong: {error}") from None


def _preprocessing_by_file_name(path: Path, arch: Architecture, say: Say) -> Preprocessing:
    """Take the preprocessing of the torchvision weights that the file is called after, else the default's."""
    for weights in weights_enum(arch.name):
        if Path(urlparse(weights.url).path).name == path.name:
            return Preprocessing.from_weights(weights.transforms())
    preprocessing = _default_preprocessing(arch)
    say(
        f"{path.name} does not say how its images were normalised and resized; "
        f"using what {arch.name}'s default weights need ({preprocessing.image_size} px)."
    )
    return preprocessing


def _load_torchvision(entry: WeightsEnum, arch: Architecture, say: Say) -> Weights:
    path = _cached(entry)
    if not path.exists():
        _fetch(entry, path, say)
    elif not _has_named_hash(path):
        say(f"{path} is not the file that torchvision published (its sha256 differs); using it all the same.")
    tensors, _ = read_tensors(path, advice="Delete it, and it is fetched again.")
    preprocessing = Preprocessing.from_weights(entry.transforms())
    return Weights(path.name, preprocessing, tensors, transform_input=arch.family in _RESCALED)


def _fetch(entry: WeightsEnum, path: Path, say: Say) -> None:
    """Download to a temporary name, check the hash that torchvision's file names end in, and rename."""
    say(f"fetching {entry.url} ({entry.meta['_file_size']:.0f} MB) to {path.parent}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(_TIMEOUT):
            torch.hub.download_url_to_file(entry.url, str(path), _named_hash(path), sys.stderr.isatty())
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # RuntimeError: the hash is wrong
        url = urlparse(entry.url)
        raise WeightsError(
            f"Weights {path.name} are not in {path.parent} and cannot be fetched from {url.netloc}{url.path} "
            f"({error}).\nPut that file into that folder, or set model.weights to a file, to builtin:glyphs, "
            "or to none for random weights."
        ) from None


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


def _has_named_hash(path: Path) -> bool:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest.startswith(_named_hash(path) or "")
