"""Which backbones are ranked: those that were named, or whose weights are on this machine."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune.config.config import Config
from finetune.errors import ConfigError
from finetune.model import Architecture, architectures, find_architecture, pending_download
from finetune.model.architecture import TIMM
from finetune.model.at_hand import architectures_at_hand, weights_at_hand

CURATED = (
    "mobilenet_v3_large",
    "efficientnet_b0",
    "resnet34",
    "resnet50",
    "convnext_tiny",
    "swin_v2_t",
    "timm:convnextv2_nano.fcmae_ft_in22k_in1k",
    "timm:vit_small_patch16_224.augreg_in21k_ft_in1k",
)
"""What `--download` fetches if nothing is named: of each kind and size that trains in reasonable time one."""

_WILDCARDS = "*?["
_ADVICE = "--download fetches them"


class Candidate(NamedTuple):
    """A backbone to rank."""

    arch: str
    weights: str
    """as `model.weights` has it"""


class LeftOut(NamedTuple):
    """A backbone, or several, that is not ranked."""

    arch: str
    reason: str

    def __str__(self) -> str:
        return f"{self.arch} is left out: {self.reason}"


@dataclass(frozen=True)
class Candidates:
    """What can be ranked, and what cannot."""

    found: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]


def find_candidates(config: Config, names: Sequence[str], *, download: bool) -> Candidates:
    """Find the backbones to rank.

    Args:
        config: its own architecture has the weights that it names; all others have published ones.
        names: architectures and patterns such as `resnet*`; none for those whose weights are at hand.
        download: take those as well that have to be fetched; of `CURATED` where nothing is named.

    Raises:
        ConfigError: a name that no architecture has, or a pattern that none matches.
    """
    own = _own(config)
    left_out: list[LeftOut] = []
    found = {} if names or own is None else {own.arch: own}
    if not names:
        for arch, weights in architectures_at_hand():
            found.setdefault(arch.name, Candidate(arch.name, weights))
        names = _curated() if download else ()
    for name in names:
        missing = []
        for arch in (matching := _matching(name)):
            if chosen := own if own and own.arch == arch.name else _choose(arch, download=download):
                found.setdefault(arch.name, chosen)
            else:
                missing.append(arch)
        left_out += _absent(name, missing, of=len(matching))
    return Candidates(tuple(found.values()), tuple(left_out))


def _curated() -> tuple[str, ...]:
    """Return what `--download` fetches here."""
    timm = importlib.util.find_spec("timm") is not None
    return tuple(name for name in CURATED if timm or not name.startswith(TIMM))


def _own(config: Config) -> Candidate | None:
    """Return the backbone of the config, if its weights need no download."""
    download = pending_download(config.model.weights, find_architecture(config.model.arch))
    return Candidate(config.model.arch, config.model.weights) if download is None else None


def _matching(name: str) -> list[Architecture]:
    """Return the architecture of a name, or all that match a pattern.

    Raises:
        ConfigError: there is none.
    """
    if not any(sign in name for sign in _WILDCARDS):
        return [find_architecture(name)]
    if not (matching := architectures(name)):
        raise ConfigError(f"{name}: no architecture has such a name.\nList all of them: finetune models")
    return matching


def _choose(arch: Architecture, *, download: bool) -> Candidate | None:
    """Return an architecture with published weights; None where none are here."""
    weights = weights_at_hand(arch) or ("default" if download and arch.weights else None)
    return None if weights is None else Candidate(arch.name, weights)


def _absent(name: str, missing: Sequence[Architecture], *, of: int) -> Iterator[LeftOut]:
    """Say why architectures are left out: each that was named, and those of a pattern together."""
    if not missing:
        return
    if of > 1:
        what = f"the weights of {len(missing):,} of {of:,} architectures are not on this machine"
        yield LeftOut(name, f"{what}; {_ADVICE}")
    elif missing[0].weights:
        url = pending_download("default", missing[0])
        yield LeftOut(missing[0].name, f"its weights are not on this machine: {url}; {_ADVICE}")
    else:
        yield LeftOut(missing[0].name, "there are no weights for it")
