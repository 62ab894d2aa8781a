"""Units of timm's networks: `group_matcher` says which parameters lie at one depth."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from finetune.model.timm_catalogue import import_timm
from finetune.model.units import NamedModule, Unit, join_shallow

# Of models without a `group_matcher`: a block is what the first one or two numbers of a name count.
_BLOCK = re.compile(r"(?:[a-z_]+\.)*?\d+(?:\.[a-z_]+)?(?:\.\d+)?", re.ASCII)


class LooseParameters(nn.Module):
    """Parameters that a network holds beside its layers, such as a class token, as part of a layer group."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Share the parameters with the module that uses them."""
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)


def timm_units(network: nn.Module, prefix: str) -> list[Unit]:
    """Cut one of timm's networks into units, in depth order; `prefix` begins the names of its modules."""
    layer_of = _layers_by_parameter(network)
    by_layer: dict[int, list[NamedModule]] = {}
    seen: set[nn.Module] = set()  # blocks may share a layer, as those of CoaT share their position encoding
    for layer, (path, module) in _parts(network, "", layer_of, []):
        if module not in seen:
            by_layer.setdefault(layer, []).append((f"{prefix}.{path}".rstrip("."), module))
        seen.add(module)
    return join_shallow(tuple(by_layer[layer]) for layer in sorted(by_layer))


def _layers_by_parameter(network: Any) -> dict[nn.Parameter, int]:
    """Return the depth of the layer that each parameter belongs to; a unit is what has one depth."""
    if hasattr(network, "group_matcher"):
        matched = import_timm().models.group_parameters(
            network, network.group_matcher(coarse=False), reverse=True
        )
        return {parameter: int(matched[name]) for name, parameter in network.named_parameters()}
    order: dict[str, int] = {}
    layers = {}
    for name, parameter in network.named_parameters():
        match = _BLOCK.match(name)
        block = match[0] if match else name.partition(".")[0]
        layers[parameter] = order.setdefault(block, len(order))
    return layers


def _parts(
    module: nn.Module, path: str, layer_of: Mapping[nn.Parameter, int], last: list[int]
) -> Iterator[tuple[int, NamedModule]]:
    """Yield the largest modules that lie in one layer each, with that layer.

    `last` holds the layer of the module before: modules without parameters, such as dropout, belong to it.
    """
    inside = f"{path}." if path else ""
    layers = {layer_of[parameter] for parameter in module.parameters()}
    if len(layers) <= 1 and path:
        last[:] = layers or last or [min(layer_of.values())]
        yield last[0], (path, module)
        return
    loose: dict[int, dict[str, nn.Parameter]] = {}
    for name, parameter in module.named_parameters(recurse=False):
        loose.setdefault(layer_of[parameter], {})[name] = parameter
    for layer, parameters in loose.items():
        yield layer, (path, LooseParameters(parameters))
    for name, child in module.named_children():
        yield from _parts(child, f"{inside}{name}", layer_of, last)
