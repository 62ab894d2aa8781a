"""Layer groups: the model in depth order, cut into parts that can learn at different rates.

Groups are runs of units (see `units.py`), balanced by depth.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from torch import nn

from finetune.choices import BatchNorm
from finetune.errors import ConfigError
from finetune.model.units import AFFINE_LAYERS, NamedModule, Unit, depth, is_norm

# A lookup in an embedding table is an affine map of a one-hot vector, so the table counts as a weight matrix.
_DECAYED_LAYERS = (*AFFINE_LAYERS, nn.Embedding)


class LayerRow(TypedDict):
    """One line of `finetune groups`: a layer, or a parameter that a block holds itself."""

    name: str
    type: str
    affine: bool
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class LayerGroup:
    """A run of modules that share a learning rate and are frozen together."""

    index: int
    """Position in depth, 0 for the group next to the image."""
    name: str
    """What people call it: `early backbone`, `late backbone`, `head`."""
    units: tuple[NamedModule, ...]
    """Its modules in depth order, with their dotted names in the model."""
    undecayed: frozenset[str] = frozenset()
    """Dotted names of parameters that its library exempts from weight decay, beside those that all exempt."""

    def modules(self) -> Iterator[nn.Module]:
        """Return every module of the group, containers and their children."""
        for _, module in self.units:
            yield from module.modules()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return every parameter of the group."""
        for _, module in self.units:
            yield from module.parameters()


def build_groups(
    units: Sequence[Unit], head: nn.Module, n: int, *, undecayed: frozenset[str] = frozenset()
) -> list[LayerGroup]:
    """Split a model into `n` layer groups: `n − 1` parts of the backbone, and the head.

    Args:
        units: those of the backbone, in depth order.
        head: the last group.
        n: number of groups, at least 2.
        undecayed: dotted names of parameters of the backbone that weight decay must leave alone.

    Raises:
        ConfigError: the backbone has too few units for that many groups, or `n` is below 2.
    """
    parts = split_into_groups(units, n - 1)
    groups = [
        LayerGroup(i, name, part, undecayed)
        for i, (name, part) in enumerate(zip(_names(n), parts, strict=True))
    ]
    return [*groups, LayerGroup(n - 1, "head", (("head", head),))]


def split_into_groups(units: Sequence[Unit], n: int) -> list[tuple[NamedModule, ...]]:
    """Split the units of a backbone into `n` runs, none empty, whose depths are as equal as can be.

    Equal means the smallest sum of squared depths; among equals the earlier cut wins.

    Raises:
        ConfigError: `n` is below 1 or above the number of units.
    """
    if not 1 <= n <= len(units):
        raise ConfigError(
            f"model.layer_groups: {n + 1} groups are not possible; the head is one, and this backbone can be "
            f"cut into 1 to {len(units)} more, so give 2 to {len(units) + 1}."
        )
    depths = [sum(depth(module) for _, module in unit) for unit in units]
    cuts = _balanced_cuts(depths, n)
    runs = [units[start:stop] for start, stop in itertools.pairwise(cuts)]
    return [tuple(itertools.chain.from_iterable(run)) for run in runs]


def layer_rows(group: LayerGroup) -> list[LayerRow]:
    """List the layers of a group that hold parameters; their `parameters` add up to the whole group's.

    A parameter that a block holds beside its layers (class token, layer scale, table of relative
    positions) has a line of its own, of type `Parameter`.
    """
    rows: list[LayerRow] = []
    for unit_name, unit in group.units:
        for name, layer in unit.named_modules(prefix=unit_name):
            rows.extend(_rows(name, layer))
    return rows


def decayed_names(module: nn.Module) -> set[str]:
    """Name the parameters that weight decay applies to: weights of affine layers and embedding tables.

    Left out are biases, everything in normalisation layers, and every parameter that a block holds beside
    its layers: decaying a scale, a position or a class token pulls it to a value that means nothing.
    """
    return {
        f"{name}.{key}" if name else key
        for name, layer in module.named_modules()
        if isinstance(layer, _DECAYED_LAYERS)
        for key, parameter in layer.named_parameters(recurse=False)
        if parameter.ndim > 1 and not key.startswith("bias")
    }


def decayed_parameters(group: LayerGroup) -> list[tuple[nn.Parameter, bool]]:
    """Pair every parameter of a group with whether weight decay applies to it."""
    pairs = []
    for path, module in group.units:
        names = {name for name in decayed_names(module) if f"{path}.{name}" not in group.undecayed}
        pairs += [(parameter, name in names) for name, parameter in module.named_parameters()]
    return pairs


def learning_parameters(group: LayerGroup, *, trainable: bool, batch_norm: BatchNorm) -> list[nn.Parameter]:
    """Return what learns of a group in a stage: all of it, or what a frozen group leaves to its norm layers.

    The one rule that both a plan of the stage and the freezing for it follow.
    """
    if trainable:
        return list(group.parameters())
    if batch_norm != "train":
        return []
    norms = (module for module in group.modules() if is_norm(module))
    return [parameter for module in norms for parameter in module.parameters(recurse=False)]


def statistics_stand_still(batch_norm: BatchNorm, *, pretrained: bool) -> bool:
    """Tell whether a stage keeps the running statistics of the whole backbone."""
    return batch_norm == "still" or (batch_norm == "auto" and pretrained)


def _names(n: int) -> list[str]:
    if n == 2:
        return ["backbone"]
    if n == 3:
        return ["early backbone", "late backbone"]
    return [f"backbone {i} of {n - 1}" for i in range(1, n)]


def _balanced_cuts(depths: Sequence[int], n: int) -> list[int]:
    """Return the n + 1 borders of n runs with the smallest sum of squared depths (dynamic programming)."""
    total = [0, *itertools.accumulate(depths)]
    # best[stop] = (cost, borders) of the best split of the first `stop` units into the runs made so far
    best = {stop: (total[stop] ** 2, [0, stop]) for stop in range(1, len(depths) + 1)}
    for runs in range(2, n + 1):
        best = {
            stop: min(
                (best[start][0] + (total[stop] - total[start]) ** 2, [*best[start][1], stop])
                for start in range(runs - 1, stop)
            )
            for stop in range(runs, len(depths) + 1)
        }
    return best[len(depths)][1]


def _rows(name: str, layer: nn.Module) -> Iterator[LayerRow]:
    own = dict(layer.named_parameters(recurse=False))
    main = own.get("weight", own.get("in_proj_weight"))
    if main is None:
        for key, parameter in own.items():
            yield {
                "name": f"{name}.{key}",
                "type": "Parameter",
                "affine": False,
                "shape": tuple(parameter.shape),
                "parameters": parameter.numel(),
            }
        return
    yield {
        "name": name,
        "type": type(layer).__name__,
        "affine": isinstance(layer, AFFINE_LAYERS),
        "shape": tuple(main.shape),
        "parameters": sum(parameter.numel() for parameter in own.values()),
    }
