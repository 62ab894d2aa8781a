"""timm's image classifiers as backbones.

timm's own methods say how a network is cut. `forward_features` is the backbone, `group_matcher` puts its
parameters in depth order, and `no_weight_decay` names those that must not decay. Nothing here depends on the
family of a network.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import ConfigError, WeightsError
from finetune.model.architecture import Architecture
from finetune.model.fitting import which_fit
from finetune.model.meta import call_with, is_quick, meta_tensors, on_meta, probe_tensors
from finetune.model.tensor_names import find_reading, own_naming
from finetune.model.tensors import describe_misfits, is_declared_only, is_plain
from finetune.model.timm_catalogue import import_timm
from finetune.model.timm_units import timm_units
from finetune.model.units import Unit

# What the conversion of a checkpoint raises on tensors of something else; and torch, on what does not fit.
_MISFITS = (RuntimeError, LookupError, TypeError, ValueError, AttributeError, AssertionError)

# What PyTorch puts before names of a network that is compiled or trained on several devices.
_WRAPPED = re.compile(r"(module\.|_orig_mod\.)+")

# How torch begins when shapes inside a network differ: no reason that a user could read.
_TORCHS_WORDS = re.compile(r"Attempting to broadcast|shape '|Sizes of tensors|The size of tensor|Expected ")


class TimmBackbone(nn.Module):
    """A timm network up to its classifier.

    Networks whose features are a map give that map, channels first, so that the head pools it. All others
    (tokens, several scales) pool in a way of their own, which is part of the backbone then.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take a network; what its features do not depend on should have been removed from it."""
        super().__init__()
        self.network: Any = network
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        """Turn normalised images (N, 3, H, W) into a map (N, C, h, w), or into vectors (N, D)."""
        features = self.network.forward_features(images)
        if isinstance(features, Tensor) and features.ndim == 4:
            return features.permute(0, 3, 1, 2) if self._channels_last else features
        pooled: Tensor = self.network.forward_head(features, pre_logits=True)
        return pooled

    def units(self, prefix: str) -> list[Unit]:
        """Cut the network into units in depth order, as its `group_matcher` says."""
        return timm_units(self.network, f"{prefix}.network")

    def undecayed_names(self) -> set[str]:
        """Name the parameters that timm exempts from weight decay."""
        exempt = getattr(self.network, "no_weight_decay", tuple)
        return {f"network.{name}" for name in exempt()}


def build_timm_backbone(
    arch: Architecture, image_size: int, tensors: Mapping[str, Tensor] | None = None, *, origin: str = ""
) -> TimmBackbone:
    """Build a network without its classifier and without whatever else its features do not depend on.

    Args:
        arch: one of timm's architectures.
        image_size: side of the square images in pixels.
        tensors: its weights, see `load_timm_backbone`; None for random ones.
        origin: where the weights are from, for messages.

    Raises:
        ConfigError: the network cannot take images of this size.
        WeightsError: the weights are another architecture's, or hold numbers that are not finite.
    """
    if tensors is not None:
        return load_timm_backbone(arch, image_size, tensors, origin=origin)[0]
    network = import_timm().create_model(arch.own_name, **_size_option(arch, image_size))
    return _without(network, _unused_modules(network, arch, image_size))


def check_timm_size(arch: Architecture, image_size: int) -> None:
    """Refuse a side in pixels that a network cannot be built for.

    Raises:
        ConfigError: says why.
    """
    size = _size_option(arch, image_size)
    with on_meta():
        network = import_timm().create_model(arch.own_name, **size)
    if is_quick(network, image_size):
        with torch.random.fork_rng(devices=[]):
            network = import_timm().create_model(arch.own_name, **size)
    _unused_modules(network, arch, image_size)


def load_timm_backbone(
    arch: Architecture, image_size: int, tensors: Mapping[str, Tensor], *, origin: str = ""
) -> tuple[TimmBackbone, list[str]]:
    """Build a network as `build_timm_backbone` does, with weights, and say how their names were read.

    timm converts checkpoints to its own names, and interpolates position embeddings to the image size.

    Args:
        arch: one of timm's architectures.
        image_size: side of the square images in pixels.
        tensors: its weights, by the names of timm or of a checkpoint that timm converts. Those of the
            classifier may be missing, or be for other classes.
        origin: where the weights are from, for messages.

    Raises:
        ConfigError: the network cannot take images of this size.
        WeightsError: the weights are another architecture's, or hold numbers that are not finite.
    """
    size = _size_option(arch, image_size)
    blank = import_timm().create_model(arch.own_name, **size)
    unused = _unused_modules(blank, arch, image_size)
    spare = _tensors_of(blank, unused)
    own, notes = _own_names(tensors, blank, spare, origin)
    network = _create_with(arch, size, own, blank, spare, origin=origin)
    backbone = _without(network, unused)
    _check_finite(backbone, origin)
    return backbone, notes


def _without(network: nn.Module, unused: list[str]) -> TimmBackbone:
    for path in unused:
        parent, _, own = path.rpartition(".")
        setattr(network.get_submodule(parent), own, nn.Identity())
    return TimmBackbone(network)


def _own_names(
    tensors: Mapping[str, Tensor], blank: nn.Module, unused: Mapping[str, Tensor], origin: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Name tensors as the network does, where a prefix hides that; else drop what all names begin with.

    timm converts the names of other authors, which are not known here.
    """
    ways = [own_naming([name for name in blank.state_dict() if name not in unused], blank.state_dict())]
    reading = find_reading(tensors, ways, origin=origin)
    if reading is not None:
        names = reading.rename(tensors)
        return {name: tensors[given] for name, given in names.items()}, reading.notes(tensors)
    wrapped = _WRAPPED.match(next(iter(tensors), ""))
    if wrapped and all(name.startswith(wrapped[0]) for name in tensors):
        notes = [f"names read without the prefix {wrapped[0]!r}"]
        return {name.removeprefix(wrapped[0]): tensor for name, tensor in tensors.items()}, notes
    return dict(tensors), []


def check_other_timm_size(arch: Architecture, built_for: int, image_size: int, *, key: str) -> None:
    """Refuse a side in pixels, the value of `key`, that a network built for another size cannot take.

    Raises:
        ConfigError: says why.
    """
    with on_meta():
        backbone = build_timm_backbone(arch, built_for)
    try:
        with torch.no_grad():
            call_with(backbone, meta_tensors(backbone), 2, image_size)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{key}: {arch.name}, built for {built_for} pixels, cannot take images of {image_size} pixels "
            f"({_readable(str(error))}).\n"
            "Leave the key out, or take another network; many convolutional ones take any size."
        ) from None


def _readable(reason: str) -> str:
    """Return the first line of an error as a reason, if a user can read it as one."""
    reason = reason.partition("\n")[0].strip().removesuffix(".")
    if not reason or _TORCHS_WORDS.match(reason):
        return "its layers do not fit together at that size"
    return reason


def _size_option(arch: Architecture, image_size: int) -> dict[str, int]:
    """Return what timm's builder needs to know of an image size; only some networks need to know theirs."""
    if image_size == arch.image_size:
        return {}
    try:
        with on_meta():
            import_timm().create_model(arch.own_name, img_size=image_size)
    except TypeError:  # it has no such argument: a convolutional network, which takes any size
        return {}
    except (AssertionError, ValueError, RuntimeError) as error:
        raise _wrong_size(arch, image_size, str(error)) from None
    return {"img_size": image_size}


def _create_with(
    arch: Architecture,
    size: Mapping[str, int],
    tensors: Mapping[str, Tensor],
    blank: nn.Module,
    unused: Mapping[str, Tensor],
    *,
    origin: str,
) -> nn.Module:
    """Build a network with weights; what they lack or have otherwise of what is `unused` is ignored.

    `blank` is the same network without these weights.
    """
    for name, tensor in tensors.items():
        if not is_plain(tensor):
            raise WeightsError(f"model.weights: {origin}: {name} is {tensor.dtype}, not plain numbers.")
        if is_declared_only(tensor):
            raise WeightsError(f"model.weights: {origin}: {name} is larger than the file that holds it.")
    as_given = {"state_dict": dict(tensors)}
    # timm drops the first class of weights that have one for the background; ours have none.
    completed = {"state_dict": {**tensors, **unused}, "label_offset": 0}
    first: Exception | None = None
    for overlay in (as_given, completed):
        try:
            network: nn.Module = import_timm().create_model(
                arch.own_name, pretrained=True, pretrained_cfg_overlay=overlay, **size
            )
        except _MISFITS as error:
            first = error
        else:
            return network
    raise WeightsError(
        f"model.weights: {origin} does not fit {arch.name}: {_misfits(tensors, blank, unused, first)}. "
        f"{which_fit(tensors, arch, origin)}"
    )


def _misfits(
    tensors: Mapping[str, Tensor], blank: nn.Module, unused: Mapping[str, Tensor], error: Exception | None
) -> str:
    """Say in a few words how weights differ from what a network has, or how timm failed on them."""
    wanted = {name: tensor for name, tensor in blank.state_dict().items() if name not in unused}
    found = describe_misfits(tensors, wanted, {name.partition(".")[0] for name in unused})
    return found or str(error).strip().partition("\n")[0][:120]


def _check_finite(backbone: nn.Module, origin: str) -> None:
    for name, tensor in backbone.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"model.weights: {origin}: {name} holds NaN or infinity; the file is no good.")


def _unused_modules(network: nn.Module, arch: Architecture, image_size: int) -> list[str]:
    """Name the modules with parameters that no feature depends on, such as the classifier.

    Backpropagation finds them: they are what gets no gradient. Their pretrained weights would otherwise
    stand in a layer group, and do nothing.
    """
    backbone = TimmBackbone(network)
    tensors = probe_tensors(backbone, image_size, gradients=True)
    try:
        with torch.enable_grad():
            call_with(backbone, tensors, 2, image_size).sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _wrong_size(arch, image_size, str(error)) from None
    used = {key.removeprefix("network.") for key, tensor in tensors.items() if tensor.grad is not None}
    found: list[str] = []
    for path, module in network.named_modules():
        names = {f"{path}.{key}" for key, _ in module.named_parameters()}
        inside = any(path.startswith(f"{above}.") for above in found)
        if path and names and not names & used and not inside:
            found.append(path)
    return found


def _tensors_of(network: nn.Module, paths: list[str]) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: state[name] for name in state if any(name.startswith(f"{path}.") for path in paths)}


def _wrong_size(arch: Architecture, image_size: int, reason: str) -> ConfigError:
    return ConfigError(
        f"data.image_size: {arch.name} cannot take images of {image_size} pixels ({_readable(reason)}).\n"
        f"Give {arch.image_size}, the size it was trained with, or leave the key out; many networks take "
        "multiples of 32 only."
    )
