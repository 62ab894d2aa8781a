"""Units: the smallest parts of a backbone that a cut between layer groups may leave whole.

A unit is a residual block, or a convolution with the normalisation and activation behind it.
"""

from collections.abc import Iterable, Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

NamedModule = tuple[str, nn.Module]
Unit = tuple[NamedModule, ...]

NORM_LAYERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)

# Maps y = A·x + b. Attention holds its first projection itself and its last one as a Linear below it.
AFFINE_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, nn.MultiheadAttention)


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a normalisation layer of any kind."""
    return isinstance(module, NORM_LAYERS)


def has_statistics(module: nn.Module) -> bool:
    """Tell whether a normalisation layer keeps running statistics of the images it has seen."""
    return is_norm(module) and getattr(module, "running_mean", None) is not None


def depth(module: nn.Module) -> int:
    """Count the affine layers in a module."""
    return sum(isinstance(layer, AFFINE_LAYERS) for layer in module.modules())


def find_units(backbone: nn.Sequential, prefix: str = "backbone") -> list[Unit]:
    """Cut a sequence of modules into units, in depth order.

    Plain `nn.Sequential` containers are opened, their subclasses and all other modules stay whole.
    """
    return join_shallow((named,) for named in _open(prefix, backbone))


def join_shallow(units: Iterable[Unit]) -> list[Unit]:
    """Join whatever has no affine layer (activation, pooling, normalisation, tokens) to the unit before it.

    No cut then falls between a convolution and its normalisation.
    """
    joined: list[Unit] = []
    leading: Unit = ()
    for unit in units:
        if sum(depth(module) for _, module in unit):
            joined.append((*leading, *unit))
            leading = ()
        elif joined:
            joined[-1] = (*joined[-1], *unit)
        else:
            leading = (*leading, *unit)
    return joined


def _open(name: str, module: nn.Module) -> Iterator[NamedModule]:
    """Open plain sequences, except one that begins with a norm: that norm belongs to what follows it."""
    children = list(module.named_children())
    if type(module) is not nn.Sequential or not children or is_norm(children[0][1]):
        yield name, module
        return
    for child_name, child in children:
        yield from _open(f"{name}.{child_name}", child)
