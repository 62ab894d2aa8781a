"""Which architecture `finetune init` proposes: one whose weights can be had where it runs."""

import os
from importlib.util import find_spec
from pathlib import Path

from finetune.config.yaml_writer import write_value
from finetune.packaged_weights import PACKAGES
from finetune.text import expanded

_RESNET34 = "resnet34-b627a593.pth"  # torchvision's file of the default weights, in torch's cache


def architecture_lines() -> str:
    """Write an architecture whose weights can be had here, and what a larger one would need.

    resnet34 is proposed unless its weights would have to be downloaded and those of another are installed.
    """
    installed = next((known for known in PACKAGES if known.path() is not None), None)
    cached = (_torch_cache() / _RESNET34).is_file()
    if cached or installed is None or find_spec("timm") is None:
        note = "its weights are here" if cached else "83 MB of weights, downloaded once"
        return f"  arch: resnet34              # {note}; all that there are: finetune models\n"
    return (
        f"  # The weights of this small network are installed ({installed.package}). Larger ones, which are\n"
        "  # downloaded, may be better: resnet34 (83 MB), convnext_tiny (109 MB); all: finetune models\n"
        f"  arch: {write_value(f'timm:{installed.arch}')}\n"
    )


def _torch_cache() -> Path:
    """Return where torch keeps weights, by its own rule, without importing it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return expanded(home) / "hub" / "checkpoints"
