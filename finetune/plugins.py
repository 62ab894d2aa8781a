"""What other packages add to this one, found by the entry points in their metadata.

| group | an entry point is |
|---|---|
| `finetune.commands` | a function with typer's annotations, or a `typer.Typer`: a command of its name |
| `finetune.architectures` | a module that registers networks with timm: `model.arch: timm:NAME` |
| `finetune.optimizers` | a class of torch's optimizers: `optimizer.name` |
| `finetune.heuristics` | a function from the curve of a range test to a rate: `lr_finder.pick` |
| `finetune.metrics` | a function from probabilities and targets to a score: `monitor: val_NAME` |
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal, TypeVar, get_args

from finetune.errors import ConfigError

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""what the code of another package may raise where it is wrong"""

_T = TypeVar("_T")

Group = Literal[
    "finetune.commands",
    "finetune.architectures",
    "finetune.optimizers",
    "finetune.heuristics",
    "finetune.metrics",
]


@dataclass(frozen=True)
class FromPackage:
    """What a training took from another package, as the run directory records it."""

    group: Group
    name: str
    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}".strip()

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON can hold it."""
        return asdict(self)


def installed(group: Group) -> Iterator[EntryPoint]:
    """Return what is installed of a group, by name; of equal names the first that Python finds."""
    points = {point.name: point for point in reversed(tuple(entry_points(group=group)))}
    yield from (points[name] for name in sorted(points))


def installed_names(group: Group) -> tuple[str, ...]:
    """Return the names of what is installed of a group."""
    return tuple(point.name for point in installed(group))


def load(point: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        ConfigError: it cannot be imported; says what, of which package, and why.
    """
    try:
        return point.load()
    except FAULTS as error:
        package = package_of(point)
        raise ConfigError(
            f"{point.name} of the package {package} cannot be loaded ({point.value}): "
            f"{type(error).__name__}: {error}\nRepair the package, or: pip uninstall {package}"
        ) from error


@cache
def load_named(group: Group, name: str) -> tuple[Any, FromPackage]:
    """Import what is installed under a name, once; return it, and what it is from.

    Raises:
        ConfigError: there is no such name, or it cannot be imported.
    """
    for point in installed(group):
        if point.name == name:
            return load(point), origin_of(point, group)
    raise ConfigError(
        f"{name} is of another package, and none that is installed has it (entry points of {group}).\n"
        "Install the package that it is of; docs/extending.md says how one adds it."
    )


def call(origin: FromPackage, function: Callable[[], _T]) -> _T:
    """Call what a package provides.

    Raises:
        ConfigError: it fails; names the package and the fault, where our own would show a traceback.
    """
    try:
        return function()
    except FAULTS as error:
        # Memory that runs out is no fault of the package; torch says it in a RuntimeError.
        if "memory" in str(error):
            raise
        place = extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"{origin.name} of {origin} failed: {type(error).__name__}: {error} "
            f"({Path(place.filename).name}:{place.lineno})\n"
            f"Repair the package or report it there; a config without {origin.name} does not call it."
        ) from error


def package_of(point: EntryPoint) -> str:
    """Return the name of the package that an entry point is of."""
    return point.dist.name if point.dist is not None else point.module


def origin_of(point: EntryPoint, group: Group) -> FromPackage:
    """Return which package, of which version, an entry point is of."""
    version = point.dist.version if point.dist is not None else ""
    return FromPackage(group, point.name, package_of(point), version)


def require_packages(recorded: Sequence[Mapping[str, str]], what: str) -> None:
    """Make sure that all is installed that was recorded.

    Args:
        recorded: what `FromPackage.to_dict` gave.
        what: what needs it, as a message calls it.

    Raises:
        ConfigError: something is not; names the package, its version, and the line that installs it.
    """
    for origin in recorded:
        group, name = origin["group"], origin["name"]
        if group in get_args(Group) and name not in installed_names(group):  # type: ignore[arg-type]
            package = f"{origin['package']}=={origin['version']}"
            raise ConfigError(
                f"{what} was trained with {name} ({group}) of {origin['package']} {origin['version']}, "
                f"which is not installed.\nInstall it: pip install '{package}'"
            )
