"""What other packages add to this one, found by the entry points in their metadata.

| group | an entry point is |
|---|---|
| `finetune.commands` | a function with typer's annotations: a command of its name |
| `finetune.architectures` | a module that registers networks with timm: `model.arch: timm:NAME` |
"""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from finetune.errors import ConfigError

_FAULTS = (ImportError, AttributeError, NameError, SyntaxError, TypeError, ValueError)

Group = Literal["finetune.commands", "finetune.architectures"]


def installed(group: Group) -> Iterator[EntryPoint]:
    """Return what is installed of a group, by name."""
    yield from sorted(entry_points(group=group), key=lambda point: point.name)


def load(point: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        ConfigError: it cannot be imported; says what, of which package, and why.
    """
    try:
        return point.load()
    except _FAULTS as error:
        package = point.dist.name if point.dist is not None else point.module
        raise ConfigError(
            f"{point.name} of the package {package} cannot be loaded ({point.value}): "
            f"{type(error).__name__}: {error}\nRepair the package, or: pip uninstall {package}"
        ) from error
