"""timm's architectures, by the names `timm:NAME` and `timm:NAME.TAG` that a config may have."""

import difflib
import fnmatch
import importlib.util
import sys
from functools import cache
from importlib import import_module
from typing import Any

from finetune.errors import ConfigError
from finetune.imports import import_without_compiler, imported_later, quick_imports
from finetune.model.architecture import TIMM, Architecture
from finetune.model.meta import on_meta
from finetune.plugins import FromPackage, installed, load, origin_of

INSTALL = "pip install 'finetune-vision[timm]'"

# Counting parameters takes building each network, on the meta device: seconds for a screenful of them.
_COUNTED = 40


def import_timm() -> Any:
    """Import timm.

    Raises:
        ConfigError: it is not installed; says how to install it. Or a package that adds to it is broken.
    """
    if importlib.util.find_spec("timm") is None:
        raise ConfigError(f"model.arch: architectures called timm:… need timm.\nInstall it: {INSTALL}")
    if "timm" not in sys.modules:  # it is asked for thousands of times
        # timm imports wandb where it is installed, for scripts of its own; that takes half as long as timm.
        with quick_imports(), imported_later("wandb"):
            import_without_compiler("timm")
            import_module("timm")  # where it needs the compiler
    timm = sys.modules["timm"]
    _register_plugins()
    return timm


@cache
def _register_plugins() -> None:
    for point in installed("finetune.architectures"):
        load(point)


def package_of_architecture(name: str) -> FromPackage | None:
    """Return what package an architecture is of that timm itself has not; None for one of timm's own."""
    home = import_timm().model_entrypoint(name.removeprefix(TIMM).partition(".")[0]).__module__
    for point in installed("finetune.architectures"):
        if f"{home}.".startswith(f"{point.module}."):
            return origin_of(point, "finetune.architectures")
    return None


def find_timm_architecture(name: str) -> Architecture:
    """Look one of timm's architectures up by `timm:NAME` or `timm:NAME.TAG`.

    Raises:
        ConfigError: timm is not installed, or has none of that name or tag; the message offers the nearest.
    """
    timm = import_timm()
    own, _, tag = name.removeprefix(TIMM).partition(".")
    if not timm.is_model(own):
        near = difflib.get_close_matches(own.lower(), timm.list_models(), n=3, cutoff=0.5)
        names = " or ".join(f"{TIMM}{other}" for other in near)
        hint = f"did you mean {names}?" if near else "one of them is timm:resnet50."
        raise ConfigError(
            f"model.arch: timm has no architecture called {own!r}; {hint} "
            "`finetune models 'timm:*'` lists all."
        )
    tags = _tags(own)
    if tag and tag not in tags:
        known = ", ".join(tags) or "none at all"
        raise ConfigError(f"model.arch: timm's {own} has no weights with the tag {tag!r}; there is {known}.")
    return _describe(own, tag)


def timm_architectures(pattern: str) -> list[Architecture]:
    """List timm's architectures whose name matches a shell pattern such as `timm:*lite*`.

    Their parameters are counted where they are few.

    Raises:
        ConfigError: timm is not installed.
    """
    own = pattern.removeprefix(TIMM).lower()
    own = own if any(sign in own for sign in "*?[") else f"*{own}*"
    found = fnmatch.filter(import_timm().list_models(), own)
    return [_describe(name, "", count=len(found) <= _COUNTED) for name in found]


@cache
def _describe(own: str, tag: str, *, count: bool = False) -> Architecture:
    timm = import_timm()
    name = f"{own}.{tag}" if tag else own
    return Architecture(
        name=f"{TIMM}{name}",
        family=timm.model_entrypoint(own).__module__.rpartition(".")[2],
        parameters=_count_parameters(own) if count else None,
        image_size=timm.get_pretrained_cfg(name).input_size[-1],
        weights=_tags(own),
        download_mb=None,
    )


def _tags(own: str) -> tuple[str, ...]:
    """Name the pretrained weights of an architecture, the default first."""
    timm = import_timm()
    known = timm.models.get_arch_pretrained_cfgs(own)
    tags = [cfg.tag for cfg in known.values() if cfg.tag and cfg.has_weights]
    default = timm.get_pretrained_cfg(own).tag
    return tuple(sorted(tags, key=lambda tag: (tag != default, tag)))


def _count_parameters(own: str) -> int:
    with on_meta():
        network = import_timm().create_model(own)
    return sum(parameter.numel() for parameter in network.parameters())
