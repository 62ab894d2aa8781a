"""Which architectures a file of weights fits: those whose tensors have its names and shapes."""

import difflib
import importlib.util
import time
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import PurePath

from torch import Tensor, nn

from finetune.errors import WeightsError
from finetune.model.architecture import TIMM, Architecture
from finetune.model.catalogue import architectures
from finetune.model.meta import WithoutValues, on_meta
from finetune.model.surgery import POSITIONS, build_network, cut, torchvision_names
from finetune.model.tensor_names import Naming, find_reading, namings, own_naming
from finetune.model.timm_catalogue import find_timm_architecture, import_timm

_SECONDS = 10.0
"""How long to look among timm's 1,400 architectures, of which each takes a tenth of a second."""

_NAMED = 4  # architectures in a message; some files fit dozens of timm's


def which_fit(tensors: Mapping[str, Tensor], arch: Architecture, origin: str) -> str:
    """Say which architectures a file fits that does not fit `arch`, in a sentence that says what to set.

    Those of the library of `arch` come first; the other library is looked at if none of them fits. timm's are
    looked at for some seconds, the likely ones first.
    """
    libraries = [_of_timm, _of_torchvision] if arch.of_timm else [_of_torchvision, _of_timm]
    for library in libraries:
        found = [name for name in library(tensors, arch, origin) if name != arch.name]
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            return f"It looks like {' or '.join(found[:_NAMED])}{more}: set model.arch: {found[0]}."
    return "Set model.arch to the architecture it was saved from, or name other weights."


def _of_torchvision(tensors: Mapping[str, Tensor], arch: Architecture, origin: str) -> list[str]:
    ends = {name.rpartition(".")[2] for name in tensors}
    first: dict[str, bool] = {}
    found = []
    for other in sorted(architectures(), key=lambda other: other.parameters or 0):
        if first.get(other.family) is False:
            continue
        ways, shapes = _torchvision_shapes(other)
        if other.family not in first:  # all of a family begin alike
            start = next(iter(ways[0].names)).rpartition(".")
            first[other.family] = start[2] in ends and _any_ends_with(tensors, ways)
        if first[other.family] and _has_shapes(tensors, ways, shapes, origin):
            found.append(other.name)
    return found


def _any_ends_with(tensors: Collection[str], ways: list[Naming]) -> bool:
    starts = [next(iter(way.names)) for way in ways]
    return any(name == start or name.endswith(f".{start}") for name in tensors for start in starts)


@cache
def _torchvision_shapes(arch: Architecture) -> tuple[list[Naming], dict[str, tuple[int, ...]]]:
    """Return how the tensors of an architecture's backbone may be called, and their shapes."""
    with WithoutValues():
        network = build_network(arch, arch.image_size)
    return ways_to_name(network, cut(network)), _shapes(network)


def ways_to_name(network: nn.Module, backbone: nn.Module) -> list[Naming]:
    """Return how files may call the tensors of a backbone that was cut out of torchvision's network."""
    own = own_naming(torchvision_names(network, backbone).values(), _shapes(network))
    return namings(own, [name for name, _ in network.named_children()])


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _has_shapes(
    tensors: Mapping[str, Tensor], ways: list[Naming], shapes: Mapping[str, tuple[int, ...]], origin: str
) -> bool:
    try:
        reading = find_reading(tensors, ways, origin=origin)
    except WeightsError:  # two networks of it fit
        return True
    if reading is None:
        return False
    wanted = set(reading.naming.names.values())
    return all(
        tuple(tensors[name].shape) == shapes[ours] or ours.endswith(POSITIONS)
        for ours, name in reading.rename(tensors).items()
        if ours in wanted
    )


def _of_timm(tensors: Mapping[str, Tensor], arch: Architecture, origin: str) -> list[str]:
    if importlib.util.find_spec("timm") is None:
        return []
    until, found = time.monotonic() + _SECONDS, []
    for name in _likely(tensors, arch, PurePath(origin).stem):
        if time.monotonic() > until:
            break
        if _has_shapes(tensors, *_timm_shapes(name), origin):
            found.append(f"{TIMM}{name}")
    return found


def _likely(tensors: Collection[str], arch: Architecture, stem: str) -> Iterator[str]:
    """Name timm's architectures whose first layer a file has, the likely ones first.

    Likely is what the file is called after, and what is of the family of `arch`.
    """
    timm = import_timm()
    ends = {".".join(name.split(".")[-parts:]) for name in tensors for parts in range(1, 5)}
    likely = []
    for name in timm.list_models():
        first = timm.get_pretrained_cfg(name).first_conv
        firsts = [first] if isinstance(first, str) else list(first or ())
        if firsts and f"{firsts[0]}.weight" in ends:
            same = timm.model_entrypoint(name).__module__.endswith(f".{arch.family}")
            likely.append((not same, -difflib.SequenceMatcher(None, stem, name).ratio(), name))
    return (name for *_, name in sorted(likely))


@cache
def _timm_shapes(name: str) -> tuple[list[Naming], dict[str, tuple[int, ...]]]:
    arch = find_timm_architecture(f"{TIMM}{name}")
    with on_meta():
        network = import_timm().create_model(arch.own_name)
    state = network.state_dict()
    given = import_timm().get_pretrained_cfg(name).classifier or ()
    heads = (given,) if isinstance(given, str) else tuple(given)
    wanted = [n for n in state if not any(n.startswith(f"{head}.") for head in heads)]
    own = own_naming(wanted, state)
    return namings(own, [n for n, _ in network.named_children()]), _shapes(network)
