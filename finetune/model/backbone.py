"""Backbones: a network of torchvision or timm up to its classifier, with pretrained weights in it."""

from pathlib import Path

from torch import nn

from finetune.model.architecture import Architecture
from finetune.model.download import Say
from finetune.model.fitting import ways_to_name
from finetune.model.linear import hasten_linear_layers
from finetune.model.surgery import (
    build_network,
    check_image_size,
    check_other_size,
    cut,
    fit_positions,
    torchvision_names,
)
from finetune.model.tensor_names import find_reading, nearest_reading
from finetune.model.tensors import copy_weights
from finetune.model.timm_network import (
    TimmBackbone,
    build_timm_backbone,
    check_other_timm_size,
    check_timm_size,
    load_timm_backbone,
)
from finetune.model.units import Unit, find_units
from finetune.model.weights import Weights

PREFIX = "backbone"
"""Name of the backbone in an `ImageClassifier`."""


def build_backbone(
    arch: Architecture,
    image_size: int,
    weights: Weights | None = None,
    *,
    transform_input: bool = False,
    say: Say | None = None,
) -> nn.Module:
    """Build a backbone, which maps normalised images (N, 3, H, W) to a map (N, C, h, w) or to vectors (N, D).

    Args:
        arch: which one.
        image_size: side of the square images in pixels.
        weights: None, or weights without tensors, for random ones.
        transform_input: whether torchvision's GoogLeNet and Inception rescale their input.
        say: called with a line about how the names in a file of weights were read.

    Raises:
        ConfigError: the architecture cannot work with images of this size.
        WeightsError: the weights are another architecture's, or hold numbers that are not finite.
    """
    backbone: nn.Module
    if arch.of_timm:
        backbone = _build_timm(arch, image_size, weights, say)
    else:
        network = build_network(arch, image_size, transform_input=transform_input)
        backbone = cut(network)
        if weights is not None and weights.tensors is not None:
            _load(arch, network, backbone, weights, say)
    hasten_linear_layers(backbone)
    return backbone


def check_size(arch: Architecture, image_size: int) -> None:
    """Refuse a side in pixels that the architecture cannot work with, before anything is downloaded.

    Raises:
        ConfigError: says why, and which sizes are possible.
    """
    if not arch.of_timm:
        check_image_size(arch, image_size)
    elif image_size != arch.image_size:
        check_timm_size(arch, image_size)


def check_stage_size(arch: Architecture, built_for: int, image_size: int, *, key: str) -> None:
    """Refuse a side in pixels, the value of `key`, at which a network built for another size cannot train.

    Raises:
        ConfigError: says why.
    """
    if image_size == built_for:
        return
    check = check_other_timm_size if arch.of_timm else check_other_size
    check(arch, built_for, image_size, key=key)


def backbone_units(backbone: nn.Module) -> list[Unit]:
    """Cut a backbone into its units, in depth order."""
    if isinstance(backbone, TimmBackbone):
        return backbone.units(PREFIX)
    assert isinstance(backbone, nn.Sequential)
    return find_units(backbone, PREFIX)


def undecayed_names(backbone: nn.Module) -> frozenset[str]:
    """Name the parameters of a backbone that its library exempts from weight decay."""
    names = backbone.undecayed_names() if isinstance(backbone, TimmBackbone) else ()
    return frozenset(f"{PREFIX}.{name}" for name in names)


def _build_timm(
    arch: Architecture, image_size: int, weights: Weights | None, say: Say | None
) -> TimmBackbone:
    if weights is None or weights.tensors is None:
        return build_timm_backbone(arch, image_size)
    tensors = weights.tensors
    if weights.of_run:
        own = f"{PREFIX}.network."
        tensors = {name.removeprefix(own): tensor for name, tensor in tensors.items() if name.startswith(own)}
    backbone, notes = load_timm_backbone(arch, image_size, tensors, origin=weights.origin)
    _say_notes(weights, notes, say)
    return backbone


def _load(
    arch: Architecture, network: nn.Module, backbone: nn.Sequential, weights: Weights, say: Say | None
) -> None:
    """Copy weights into one of torchvision's networks."""
    tensors = weights.tensors or {}
    if weights.of_run:
        theirs = torchvision_names(network, backbone)
        ours = {name.removeprefix(f"{PREFIX}."): tensor for name, tensor in tensors.items()}
        tensors = {theirs.get(name, name): t for name, t in ours.items() if not name.startswith("head.")}
    else:
        ways = ways_to_name(network, backbone)
        reading = find_reading(tensors, ways, origin=weights.origin)
        if reading is not None:
            _say_notes(weights, reading.notes(tensors), say)
        names = (reading or nearest_reading(tensors, ways)).rename(tensors)
        tensors = {name: tensors[given] for name, given in names.items()}
    tensors = fit_positions(tensors, network)
    copy_weights(tensors, network, backbone, arch=arch, origin=weights.origin)


def _say_notes(weights: Weights, notes: list[str], say: Say | None) -> None:
    """Say how the names in a file of weights were read; of published weights and runs nothing is doubtful."""
    of_file = weights.source is not None and weights.source.kind == "file"
    if say is not None and of_file and notes:
        say(f"{Path(weights.origin).name}: {'; '.join(notes)}.")
