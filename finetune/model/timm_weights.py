"""Published weights of timm's architectures: which they are, where they lie, and how to fetch them.

A package that is installed comes before the caches of the hub and of torch, and these come before the
network.
"""

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlparse
from urllib.request import getproxies

from torch import Tensor

from finetune.choices import Interpolation
from finetune.errors import ConfigError, WeightsError
from finetune.model.architecture import TIMM, Architecture
from finetune.model.download import WAYS_OUT, Download, Say, cached_path, fetch
from finetune.model.meta import on_meta
from finetune.model.origin import Origin, SourceKind, sha256_of
from finetune.model.preprocessing import Preprocessing
from finetune.model.tensors import read_tensors
from finetune.model.timm_catalogue import import_timm
from finetune.packaged_weights import PackagedWeights, find_packaged_weights

HUB = "hf-hub:"
"""How the names of weights in the Hugging Face hub begin."""

_HUB_CONFIG = "config.json"  # what the hub says about weights, beside them
_FILES = ("model.safetensors", "pytorch_model.bin")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class TimmWeights:
    """Weights that timm, the hub or a package has for an architecture."""

    arch: Architecture
    cfg: Any
    """timm's `PretrainedCfg`; None for a hub's weights whose config has not been fetched yet."""
    package: PackagedWeights | None = None
    repository: str | None = None
    """`OWNER/NAME` in the hub."""

    @property
    def origin(self) -> str:
        """Where they are from, for messages."""
        if self.package is not None:
            return str(self.package)
        return f"{HUB}{self.repository}" if self.repository else self.cfg.url

    def on_disk(self) -> Path | None:
        """Return their file, if it is on this machine."""
        if self.package is not None:
            return self.package.path()
        if self.repository:
            return next(
                (path for name in self._names() if (path := _in_hub_cache(self.repository, name))), None
            )
        path = cached_path(self.cfg.url)
        return path if path.is_file() else None

    def pending(self) -> Download | None:
        """Tell what would have to be fetched; None where nothing would."""
        described = self.cfg is not None or _in_hub_cache(self.repository or "", _HUB_CONFIG) is not None
        if described and self.on_disk() is not None:
            return None
        return Download(self.origin, None, self.arch.image_size)

    def read(self, say: Say) -> tuple[dict[str, Tensor], Preprocessing, Origin]:
        """Read their tensors, after fetching them if need be, how images enter them, and where they lay.

        Raises:
            WeightsError: the file is damaged, or cannot be fetched.
            ConfigError: the hub's weights are another architecture's.
        """
        if self.package is not None:
            say(f"weights {self.package}")
            tensors, _ = read_tensors(
                self.package.checked_path(), advice=f"Install {self.package.package} anew."
            )
            package = self.package
            origin = Origin("package", package.package, package.version, package.sha256)
            return _by_order(tensors, self.arch, self.origin), preprocessing_of(self.cfg), origin
        complete = self if self.cfg is not None else replace(self, cfg=self._hub_config())
        path = complete.on_disk() or complete._fetch(say)
        tensors, _ = read_tensors(path, advice="Delete it, and it is fetched again.")
        kind: SourceKind = "hub" if self.repository else "cache"
        origin = Origin(kind, self.repository or path.name, sha256=sha256_of(path))
        return tensors, preprocessing_of(complete.cfg), origin

    def _names(self) -> tuple[str, ...]:
        own = None if self.cfg is None else self.cfg.hf_hub_filename
        return (own,) if own else _FILES

    def _fetch(self, say: Say) -> Path:
        if not self.repository:
            path = cached_path(self.cfg.url)
            fetch(Download(self.cfg.url, None, self.arch.image_size), path, say)
            return path
        say(f"fetching {self.origin}")
        return _from_hub(self.repository, self._names())

    def _hub_config(self) -> Any:
        """Read what the hub says about weights: their architecture, and how images enter them."""
        assert self.repository is not None
        path = _in_hub_cache(self.repository, _HUB_CONFIG) or _from_hub(self.repository, (_HUB_CONFIG,))
        architecture, cfg = _read_hub_config(path)
        own = self.arch.own_name.partition(".")[0]
        if architecture != own:
            raise ConfigError(
                f"model.weights: {self.origin} holds weights of {TIMM}{architecture}, not of "
                f"{self.arch.name}; set model.arch: {TIMM}{architecture}."
            )
        return cfg


def find_timm_weights(name: str, arch: Architecture) -> TimmWeights | None:
    """Return the published weights that `model.weights` names; None where it names a file or a folder.

    Args:
        name: `default`, one of timm's tags such as `a1_in1k`, or `hf-hub:OWNER/NAME`.
        arch: one of timm's architectures.

    Raises:
        ConfigError: timm has no weights for the architecture, or the name of the hub's is impossible.
    """
    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        if not _REPOSITORY.fullmatch(repository):
            raise ConfigError(
                f"model.weights: {name} is not hf-hub:OWNER/NAME, such as hf-hub:timm/resnet18.a1_in1k."
            )
        return TimmWeights(arch, None, repository=repository)
    if name != "default" and name not in arch.weights:
        return None
    own = arch.own_name if name == "default" else f"{arch.own_name.partition('.')[0]}.{name}"
    cfg = import_timm().get_pretrained_cfg(own)
    if package := find_packaged_weights(own):
        return TimmWeights(arch, cfg, package=package)
    if not cfg.hf_hub_id and not cfg.url:
        raise ConfigError(
            f"model.weights: timm has no weights for {own}; give a file or hf-hub:OWNER/NAME, "
            "or none for random weights."
        )
    return TimmWeights(arch, cfg, repository=cfg.hf_hub_id or None)


def preprocessing_of(cfg: Any) -> Preprocessing:
    """Read from timm's `PretrainedCfg` how images enter weights that it belongs to."""
    size, crop = cfg.input_size[-1], cfg.crop_pct or 0.875
    known = cfg.interpolation in get_args(Interpolation)
    return Preprocessing(
        image_size=size,
        resize_size=max(size, int(size / crop)),
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        interpolation=cast(Interpolation, cfg.interpolation) if known else "bicubic",
    )


def default_preprocessing(arch: Architecture) -> Preprocessing:
    """Return how images enter the default weights of one of timm's architectures."""
    return preprocessing_of(import_timm().get_pretrained_cfg(arch.own_name))


def _by_order(tensors: Mapping[str, Tensor], arch: Architecture, origin: str) -> dict[str, Tensor]:
    """Rename tensors to the names that timm has for them, by their order; each must have timm's shape."""
    with on_meta():
        ours = import_timm().create_model(arch.own_name.partition(".")[0]).state_dict()
    shapes = [(name, tuple(tensor.shape)) for name, tensor in ours.items()]
    if [tuple(tensor.shape) for tensor in tensors.values()] != [shape for _, shape in shapes]:
        raise WeightsError(f"model.weights: the tensors of {origin} are not those of {arch.name}.")
    return {name: tensor for (name, _), tensor in zip(shapes, tensors.values(), strict=True)}


def _read_hub_config(path: Path) -> tuple[str, Any]:
    """Return the architecture and the `PretrainedCfg` of weights from the `config.json` beside them.

    Raises:
        WeightsError: it is not what timm writes.
    """
    record = import_timm().models.PretrainedCfg
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        architecture = values["architecture"]
        given = values.get("pretrained_cfg", values)
        return str(architecture), record(**{f.name: given[f.name] for f in fields(record) if f.name in given})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise WeightsError(
            f"model.weights: {path} is no config of timm's weights; only such weights can be used."
        ) from None


def _in_hub_cache(repository: str, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _from_hub(repository: str, names: tuple[str, ...]) -> Path:
    """Fetch the first of some files that the hub has.

    Raises:
        WeightsError: it cannot be reached, or has no such file; says which file to put where.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason: Exception | None = None
    for name in names:
        try:
            if not constants.HF_HUB_OFFLINE:
                _check_name_server(constants.ENDPOINT)
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # no network, and not in the cache
            reason = reason or error
            break
        except EntryNotFoundError as error:
            reason = reason or error
        except (OSError, ValueError) as error:
            reason = error
            break
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    raise WeightsError(
        f"Weights hf-hub:{repository} are not in {folder} and cannot be fetched ({_short(reason)}).\n"
        f"Copy that folder from a machine where `hf download {repository}` was called, or {WAYS_OUT}."
    )


def _check_name_server(url: str) -> None:
    """Find the address of a server, so that a machine without a network answers at once.

    The hub's own library would try six times, for half a minute, and say so each time. A proxy may know names
    that this machine does not.

    Raises:
        OSError: the name of the server is not known here.
    """
    if not getproxies():
        socket.getaddrinfo(urlparse(url).hostname, None)


def _short(error: Exception | None) -> str:
    return str(error).strip().partition("\n")[0][:120].strip()
