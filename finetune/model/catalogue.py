"""The architectures that can be named in a config: every classification model of torchvision and of timm."""

import difflib
import fnmatch
import functools

import torchvision.models
from torchvision.models import WeightsEnum

from finetune.errors import ConfigError
from finetune.model.architecture import TIMM, Architecture
from finetune.model.timm_catalogue import find_timm_architecture, timm_architectures


def weights_enum(name: str) -> type[WeightsEnum]:
    """Return torchvision's enumeration of the pretrained weights of one architecture."""
    enum: type[WeightsEnum] = torchvision.models.get_model_weights(name)
    return enum


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(torchvision.models.list_models(module=torchvision.models))


@functools.cache
def _describe(name: str) -> Architecture:
    enum = weights_enum(name)
    default = enum["DEFAULT"]
    others = [weights.name for weights in enum if weights is not default]
    return Architecture(
        name=name,
        family=torchvision.models.get_model_builder(name).__module__.rpartition(".")[2],
        parameters=default.meta["num_params"],
        image_size=default.transforms().crop_size[0],
        weights=(default.name, *others),
        download_mb=default.meta["_file_size"],
    )


def find_architecture(name: str) -> Architecture:
    """Look an architecture up by its exact name.

    Raises:
        ConfigError: there is none of that name; the message offers the nearest ones.
    """
    if name.startswith(TIMM):
        return find_timm_architecture(name)
    if name in _names():
        return _describe(name)
    near = difflib.get_close_matches(name.lower(), _names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "the default is resnet34."
    raise ConfigError(f"model.arch: no architecture is called {name!r}; {hint} `finetune models` lists all.")


def architectures(pattern: str = "*") -> list[Architecture]:
    """List the architectures whose name matches a shell pattern (or contains it, if it has no `*`).

    They are torchvision's, or timm's if the pattern begins with `timm:`.
    """
    if pattern.startswith(TIMM):
        return timm_architectures(pattern)
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    return [_describe(name) for name in _names() if fnmatch.fnmatchcase(name, pattern.lower())]
