"""Which pretrained weights are on this machine already: packages, torch's cache and the hub's."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from finetune.errors import ConfigError
from finetune.model.architecture import TIMM, Architecture
from finetune.model.catalogue import architectures, find_architecture
from finetune.model.weights import pending_download
from finetune.packaged_weights import PACKAGES


def weights_at_hand(arch: Architecture) -> str | None:
    """Return the name of weights of an architecture that need no download; None where all do.

    The default ones come first. A tag in the name of one of timm's architectures stands for itself.
    """
    tagged = arch.of_timm and "." in arch.own_name
    for name in ("default", *(() if tagged else arch.weights)):
        try:
            if pending_download(name, arch) is None:
                return name
        except ConfigError:  # timm knows architectures without any
            return None
    return None


def architectures_at_hand() -> Iterator[tuple[Architecture, str]]:
    """Return every architecture with published weights that need no download, and their name."""
    timm = _timm_architectures() if importlib.util.find_spec("timm") is not None else []
    for arch in [*architectures(), *timm]:
        if (weights := weights_at_hand(arch)) is not None:
            yield arch, weights


def _timm_architectures() -> list[Architecture]:
    """Return timm's architectures with weights in a package or in the hub's cache."""
    from huggingface_hub import constants

    names = [known.arch for known in PACKAGES if known.path() is not None]
    folders = Path(constants.HF_HUB_CACHE).glob("models--timm--*")
    names += sorted(folder.name.removeprefix("models--timm--") for folder in folders)
    found = []
    for name in names:
        try:
            found.append(find_architecture(f"{TIMM}{name}"))
        except ConfigError:  # the hub has more than this version of timm knows
            continue
    return found
