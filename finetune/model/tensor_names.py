"""What files of weights call their tensors, and which of a network's they are.

Training scripts put a network into others, and its names then begin with where it stood: `model.`,
`net.backbone.`, `module._orig_mod.`. One rule reads them all: a prefix is dropped if the rest of the names
are the network's.
"""

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from finetune.errors import WeightsError
from finetune.text import counted

COUNTER = "num_batches_tracked"
"""how the names end of counters of batches"""


@dataclass(frozen=True)
class Naming:
    """One way in which a file may call the tensors of a backbone."""

    names: Mapping[str, str]
    """The network's own names, by those of the file."""
    cut_off: frozenset[str]
    """How names begin of what the backbone does without, such as the classifier."""
    how: str = ""
    """What is said of it where it is not the network's own."""

    def lacks(self, found: Collection[str]) -> list[str]:
        """Return the names that should be among those found, and are not.

        Files older than 2018 do not count batches; torch then counts from 0.
        """
        return [name for name in self.names if name not in found and not name.endswith(COUNTER)]

    def unexpected(self, found: Iterable[str]) -> list[str]:
        """Return the names among those found that the network does not have."""
        return [n for n in found if n not in self.names and n.partition(".")[0] not in self.cut_off]


@dataclass(frozen=True)
class Reading:
    """How the names of a file are read as those of a network."""

    prefix: str
    naming: Naming

    def rename(self, names: Iterable[str]) -> dict[str, str]:
        """Return the names below the prefix, by what the network calls them."""
        below = (name for name in names if name.startswith(self.prefix))
        own = {name: name.removeprefix(self.prefix) for name in below}
        return {self.naming.names.get(short, short): name for name, short in own.items()}

    def notes(self, names: Collection[str]) -> list[str]:
        """Say what was dropped or left out of the names of a file, and that no classifier is needed."""
        said, below = [], [name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)]
        if self.prefix:
            said.append(f"names read without the prefix {self.prefix!r}")
        if self.naming.how:
            said.append(self.naming.how)
        if outside := [name for name in names if not name.startswith(self.prefix)]:
            said.append(f"{counted(len(outside), 'tensor')} beside it left out, such as {outside[0]}")
        elif not any(name.partition(".")[0] in self.naming.cut_off for name in below):
            said.append("it holds no classifier, and none is needed: the head is new")
        return said


def own_naming(wanted: Collection[str], everything: Iterable[str]) -> Naming:
    """Return how a network itself calls the tensors of its backbone, which are those `wanted`."""
    others = {name.partition(".")[0] for name in everything if name not in wanted}
    return Naming({name: name for name in wanted}, frozenset(others))


def namings(own: Naming, children: Iterable[str]) -> list[Naming]:
    """Return all ways in which a file may call the tensors, the network's own first.

    A backbone alone is often `nn.Sequential(*network.children())`, whose names are numbers, or
    `network.features`, whose names begin below that.

    Args:
        own: the network's own way.
        children: the names of its parts, in order.
    """
    place = {child: str(number) for number, child in enumerate(children)}
    found = [own]
    if all(name.partition(".")[0] in place for name in own.names):
        by_place = {f"{place[top]}.{rest}": f"{top}.{rest}" for top, rest in map(_split, own.names)}
        others = frozenset(place[top] for top in own.cut_off if top in place)
        found.append(Naming(by_place, others, "its tensors are named by the position of their layers"))
    tops = {name.partition(".")[0] for name in own.names}
    if len(tops) == 1:
        inner = {name.partition(".")[2]: name for name in own.names}
        found.append(Naming(inner, frozenset(), f"it holds what the network calls {min(tops)}"))
    return found


def find_reading(names: Collection[str], ways: Iterable[Naming], *, origin: str) -> Reading | None:
    """Find the prefix and the naming by which all names fit; None where there are none.

    Raises:
        WeightsError: there are several, such as a network and its moving average.
    """
    for naming in ways:
        found = [prefix for prefix in _candidates(names, naming) if _fits(names, prefix, naming)]
        if len(found) > 1:
            raise WeightsError(
                f"model.weights: {origin} holds {len(found)} networks that fit, under the prefixes "
                f"{' and '.join(found)}.\nSave the one that you want: {_command(origin, found[0])}"
            )
        if found:
            return Reading(found[0], naming)
    return None


def nearest_reading(names: Collection[str], ways: Iterable[Naming]) -> Reading:
    """Return the reading that leaves the fewest names without a place; for an error about them."""

    def faults(reading: Reading) -> int:
        below = [name.removeprefix(reading.prefix) for name in names if name.startswith(reading.prefix)]
        return len(reading.naming.lacks(set(below))) + len(reading.naming.unexpected(below))

    ways = list(ways)
    found = [Reading(prefix, naming) for naming in ways for prefix in _candidates(names, naming)]
    return min([Reading("", ways[0]), *found], key=faults)


def _command(origin: str, prefix: str) -> str:
    """Return the command that makes a file of the tensors below a prefix."""
    some = f'{{k: v for k, v in s.items() if k.startswith("{prefix}")}}'
    if origin.endswith(".safetensors"):
        code = (
            "from safetensors.torch import load_file, save_file; "
            f's = load_file("{origin}"); save_file({some}, "one.safetensors")'
        )
    else:
        unwrapped = 's = s.get("state_dict", s.get("model", s))'
        code = f'import torch; s = torch.load("{origin}"); {unwrapped}; torch.save({some}, "one.pth")'
    return f"python -c {shlex.quote(code)}"


def _split(name: str) -> tuple[str, str]:
    top, _, rest = name.partition(".")
    return top, rest


def _candidates(names: Collection[str], naming: Naming) -> list[str]:
    """Return every prefix with which one tensor that must be there is there, the shortest first."""
    anchor = max(naming.lacks(()), key=len, default="")
    ends = (name for name in names if name == anchor or name.endswith(f".{anchor}"))
    return sorted({name.removesuffix(anchor) for name in ends}, key=len)


def _fits(names: Collection[str], prefix: str, naming: Naming) -> bool:
    below = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    return not naming.lacks(below) and not naming.unexpected(below)
